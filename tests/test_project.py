"""The project as a newcomer meets it: README, requirements, checks."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lska_jax.running.huge_pages import HUGE_PAGES, VARIABLE

ROOT = Path(__file__).parents[1]


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = (re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines)
    return {match[1]: match[2] for match in pinned if match}


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


@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_lint_format_and_types_pass(arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_links_and_configs_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\]\(([^)#:]+)\)", text)) | set(re.findall(r"configs/\w+\.py", text))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_snippet_of_the_readme_runs():
    text = (ROOT / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet[1]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_names_the_allocator_settings_that_programs_restart_with():
    assert f"`{VARIABLE}={HUGE_PAGES}`" in (ROOT / "README.md").read_text()
