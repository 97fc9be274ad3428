"""What a downloaded file can do: nothing but be read as data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lska_jax

PACKAGE = Path(lska_jax.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py")])

# Each can run code that is written in what it reads.
CODE_LOADERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "os.system"}
_LOAD_PROGRAM = "serialize_executable.deserialize_and_load"
# Sets of names that are allowed in one file: a config file named on the command line is run; lazy
# attributes, metric writers and engines are imported by names that stand in the code; programs come
# from the folder of compiled programs, which is code.
ALLOWED = {
    "lska_jax/commands/config_option.py": {"runpy.run_path"},
    "lska_jax/__main__.py": {"importlib.import_module"},
    "lska_jax/_lazy.py": {"importlib.import_module"},
    "lska_jax/models/heads.py": {"importlib.import_module"},
    "lska_jax/models/table.py": {"importlib.import_module"},
    "lska_jax/ops/pallas/__init__.py": {"importlib.import_module"},
    "lska_jax/running/kept_programs.py": {_LOAD_PROGRAM},
    "lska_jax/tasks/engines.py": {"importlib.import_module"},
    "lska_jax/training/metric_writers.py": {"importlib.import_module"},
    "lska_jax/weights/torch_file.py": {"torch.load"},
}
GUARDED = {
    *("runpy.run_path", "runpy.run_module", "importlib.import_module", "torch.load"),
    _LOAD_PROGRAM,
}


def offences(text: str, file: str) -> Iterator[str]:
    """Yield every import and call of a file's text that could run what it reads."""
    for node in ast.walk(ast.parse(text)):
        imported: set[str] = set()
        if isinstance(node, ast.Import):
            imported = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported = {(node.module or "").split(".")[0]}
        if imported & CODE_LOADERS:
            yield f"{file}:{node.lineno}: imports {imported & CODE_LOADERS}"
        if isinstance(node, ast.Call) and _is_unsafe(node, file):
            yield f"{file}:{node.lineno}: {ast.unparse(node)[:80]}"


def _is_unsafe(call: ast.Call, file: str) -> bool:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return True
    switches = ("allow_pickle", "trust_remote_code", "shell")
    return (
        name in CODE_RUNNERS | UNSAFE_CALLS
        or name.split(".")[-1] == "extractall"
        or (name in GUARDED and name not in ALLOWED.get(file, set()))
        or any(keywords.get(switch, "False") != "False" for switch in switches)
    )


def test_nothing_in_the_package_unpickles_or_runs_what_it_reads():
    found = [
        offence
        for file in FILES
        for offence in offences(file.read_text(), str(file.relative_to(ROOT)))
    ]
    assert found == []


def test_the_scan_finds_each_of_what_it_looks_for():
    bad = (
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "serialize_executable.deserialize_and_load(data, inputs, outputs)",
        "torch.load(path, weights_only=True)",
        "runpy.run_path(path)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
    )
    assert [len(list(offences(line, "lska_jax/any.py"))) for line in bad] == [1] * len(bad)
    guarded = "torch.load(path, weights_only=True)"
    assert not list(offences(guarded, "lska_jax/weights/torch_file.py"))
    assert list(offences("torch.load(path)", "lska_jax/weights/torch_file.py"))
