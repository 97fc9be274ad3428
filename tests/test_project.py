"""The project as a newcomer meets it: README, requirements, checks."""

import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from flax import nnx

import lska_jax
from lska_jax.models.build import abstract_model, config_of
from lska_jax.models.table import section_of
from lska_jax.running.huge_pages import HUGE_PAGES, VARIABLE

ROOT = Path(__file__).parents[1]
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = (re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines)
    return {match[1]: match[2] for match in pinned if match}


def _documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "findings").glob("*.md")]


def _sections(document: Path) -> set[str]:
    """Return the anchors that a viewer of Markdown gives the headings."""
    headings = re.findall("^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_ci_runs_the_command_that_the_readme_names():
    command = "pip install -r requirements.txt && python -m pytest"
    assert command in (ROOT / "README.md").read_text().splitlines()
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_requirement_is_pinned_and_installed_as_pinned():
    wanted = _pins()
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert len(wanted) == len([line for line in lines if line and not line.startswith("#")])
    assert {name: importlib.metadata.version(name) for name in wanted} == wanted


def test_the_package_asks_for_nothing_that_the_pins_leave_out():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in asked}
    assert names == set(_pins())


def test_every_file_of_the_package_that_is_no_code_goes_into_its_wheels():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "lska_jax"
    taken = {path for one in settings["package-data"]["lska_jax"] for path in package.glob(one)}
    files = {path for path in package.rglob("*") if path.is_file()}
    code = {path for path in files if path.suffix in (".py", ".pyc")}
    assert sorted(map(str, files - code)) == sorted(map(str, taken))


# The types take a quarter of a minute of a core: CI checks them by their own command.
@pytest.mark.parametrize(
    "arguments",
    [*CHECKS[:-1], pytest.param(CHECKS[-1], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_lint_format_and_types_pass(arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_and_configs_that_the_documents_name_exist():
    missing = []
    for document in _documents():
        text = document.read_text()
        named = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
        places = [document.parent / name for name in named]
        # A page that shows how to write files names those that are to be written.
        written = re.findall(r"```python\n# (\S+)\n", text)
        configs = set(re.findall(r"configs/\w+\.py", text)) - set(written)
        places += [ROOT / name for name in configs]
        missing += [f"{document.name}: {place}" for place in places if not place.exists()]
    assert missing == []


def test_sections_that_the_documents_link_to_exist():
    missing = []
    for document in _documents():
        for name, section in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", document.read_text()):
            target = (document.parent / name) if name else document
            if section not in _sections(target):
                missing.append(f"{document.name}: {name}#{section}")
    assert missing == []


def test_the_readme_is_short():
    seen = re.sub("<!--.*?-->", "", (ROOT / "README.md").read_text())
    assert len(seen.split()) < 700


# At every change it is traced, from shapes: test_golden.py and test_families.py run both networks.
@pytest.mark.parametrize("is_run", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_snippet_of_the_readme_runs(is_run, monkeypatch):
    if not is_run:
        monkeypatch.setattr(
            lska_jax,
            "create_model",
            lambda name, **fields: abstract_model(config_of(section_of(name, **fields))),
        )
        monkeypatch.setattr(nnx, "jit", lambda forward: functools.partial(nnx.eval_shape, forward))
    text = (ROOT / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"__name__": "__main__"}
    exec(compile(snippet[1], "README.md", "exec"), names)
    assert names["logits"].shape == (2, 10)


def test_the_page_on_training_names_the_allocator_settings_that_programs_restart_with():
    assert f"`{VARIABLE}={HUGE_PAGES}`" in (ROOT / "docs" / "training.md").read_text()


def test_the_checks_before_a_commit_are_those_of_the_tests():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall("entry: (.+)", text) == [" ".join(check) for check in CHECKS]


def test_no_licence_is_claimed_while_none_is_chosen():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not {"license", "license-files"} & set(project)
    assert not [name for name in project["classifiers"] if name.startswith("License")]
    assert "have not chosen a licence" in (ROOT / "LICENSE.md").read_text()
