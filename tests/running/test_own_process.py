"""Which process may be restarted: only one that a command line of this project started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lska_jax.running import huge_pages
from lska_jax.running.own_process import is_own_process

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python"


@pytest.fixture
def started(monkeypatch):
    """Return what makes this process look as if a command line had started it."""
    monkeypatch.setattr(sys, "gettrace", lambda: None)

    def start(command_line: str) -> None:
        monkeypatch.setattr(sys, "orig_argv", command_line.split())

    return start


@pytest.mark.parametrize(
    "command_line",
    [
        "python train.py --config digits",
        "python -X importtime -Werror /clone/train.py --config digits",
        "/venv/bin/python3 -I /venv/bin/lska-jax train",
        "python -m lska_jax train",
        "python -Im lska_jax train",
        "python -mbenchmarks.model",
    ],
)
def test_the_doors_of_the_project_are_known(started, command_line):
    started(command_line)
    assert is_own_process()


@pytest.mark.parametrize(
    "command_line",
    [
        "python -m ipykernel_launcher -f kernel.json",
        "python -m pdb train.py --config digits",
        "python -m cProfile -o out train.py",
        "python /debugpy/launcher 5678 -- train.py",
        "python -c import-train train.py",
        "python my_program.py train.py",
        "python",
        "",
    ],
)
def test_every_other_process_is_not_ours(started, command_line):
    started(command_line)
    assert not is_own_process()


def test_a_process_under_a_debugger_is_not_ours(started, monkeypatch):
    started("python train.py")
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    assert not is_own_process()


def test_a_process_that_is_not_ours_is_told_of_the_settings_once(started, monkeypatch, capsys):
    started("python -m ipykernel_launcher")
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.setattr(huge_pages, "_is_explained", False)
    monkeypatch.setattr(os, "execv", lambda *unused: pytest.fail("restarted"))
    huge_pages.restart_with_huge_pages()
    huge_pages.restart_with_huge_pages()
    assert capsys.readouterr().err.count(huge_pages.HUGE_PAGES) == 1


def test_a_program_restarts_itself_once_and_not_where_another_runs_it(tmp_path):
    config = tmp_path / "own.py"
    config.write_text("import os\nprint(os.environ.get('GLIBC_TUNABLES'))\n")
    environment = {k: v for k, v in os.environ.items() if k != huge_pages.VARIABLE}

    def first_line(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command, "--config", str(config)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        return done.stdout.splitlines()[0]

    assert first_line("train.py") == huge_pages.HUGE_PAGES
    assert first_line("-m", "lska_jax", "train") == huge_pages.HUGE_PAGES
    program = "import runpy; runpy.run_path('train.py', run_name='__main__')"
    assert first_line("-c", program) == "None"
