"""The house: rooms, the direction of imports, what an import loads, sizes and names of files."""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lska_jax

PACKAGE = Path(lska_jax.__file__).parent
# Upper rooms first: a room imports from itself and from those above it.
ROOMS = (
    "_lazy",
    "ops",
    "nn",
    "models",
    "running",
    "data",
    "weights",
    "tasks",
    "training",
    "robustness",
    "analysis",
    "commands",
    "__main__",
)
MODULES = sorted(PACKAGE.rglob("*.py"))
# The package itself loads its public names on first use.
FILES_IN_ROOMS = [file for file in MODULES if file != PACKAGE / "__init__.py"]
FILE_OF_MODULE = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in MODULES
}
MAX_LINES = 400


def module_path(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    """Return the rooms that a file imports from, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide their room"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    rooms = {name.split(".")[1] for name in names if name.startswith("lska_jax.")}
    return rooms - {"__version__"}


def imported_modules(file: Path) -> set[Path]:
    """Return the files of the package that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {FILE_OF_MODULE[name] for name in names & FILE_OF_MODULE.keys()}


def test_no_file_imports_itself_through_others():
    imports = {file: imported_modules(file) for file in FILES_IN_ROOMS}
    # What imports nothing that is left is in no circle: take it away until nothing changes.
    while free := [file for file, used in imports.items() if not used & imports.keys()]:
        for file in free:
            del imports[file]
    assert sorted(map(module_path, imports)) == []


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that are loaded after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_imports_point_to_upper_rooms_only():
    wrong = {
        module_path(file): lower
        for file in FILES_IN_ROOMS
        if (lower := imported_rooms(file) - set(ROOMS[: ROOMS.index(room_of(file)) + 1]))
    }
    assert wrong == {}


def test_every_file_is_short():
    files = [*MODULES, *Path(__file__).parent.rglob("*.py")]
    lines = {str(file): len(file.read_text().splitlines()) for file in files}
    assert {file: count for file, count in lines.items() if count >= MAX_LINES} == {}


def test_every_file_says_what_it_is_for():
    assert [module_path(file) for file in MODULES if not ast.get_docstring(parsed(file))] == []


def test_no_file_is_named_after_nothing():
    empty_words = {"util", "utils", "helper", "helpers", "common", "misc"}
    names = map(module_path, MODULES)
    assert [name for name in names if empty_words & set(re.split(r"[/_.]", name))] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import lska_jax",
        "from lska_jax import list_models, model_entry",
        "import lska_jax.training.config",
    ],
)
def test_looking_around_loads_no_framework(statement):
    heavy = {"jax", "jaxlib", "flax", "numpy", "tensorflow", "torch", "orbax", "grain"}
    assert not loaded_by(statement) & heavy


def test_models_need_neither_tensorflow_nor_torch():
    loaded = loaded_by("from lska_jax import create_model, weights\nweights.load_state_dict")
    assert "flax" in loaded
    assert not loaded & {"tensorflow", "torch", "tensorflow_datasets", "grain", "cv2"}


def test_every_public_name_can_be_imported():
    for package in (
        "lska_jax",
        "lska_jax.analysis",
        "lska_jax.data",
        "lska_jax.ops",
        "lska_jax.ops.pallas",
        "lska_jax.robustness",
        "lska_jax.robustness.report",
        "lska_jax.tasks",
        "lska_jax.weights",
    ):
        module = importlib.import_module(package)
        assert module.__all__
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_public_name_is_what_it_names_after_its_module_was_imported_too():
    importlib.import_module("lska_jax.ops.kernel_spec")
    assert lska_jax.ops.kernel_spec(23).dilation == 3


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lska_jax' has no attribute 'LSK'"):
        lska_jax.LSK  # noqa: B018
