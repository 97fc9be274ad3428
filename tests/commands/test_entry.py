"""The one entry ``lska-jax``: its help, and that neither help nor a listing loads what is heavy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lska_jax
from lska_jax.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
NAMES = [name for group in COMMANDS.values() for name in group]
HEAVY = {
    *("jax", "flax", "optax", "orbax", "grain", "tensorflow", "tensorflow_datasets"),
    *("torch", "sklearn", "matplotlib", "PIL", "absl"),
}


def test_help_lists_every_command_on_one_line(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if re.match("  [a-z-]+  ", line)] == NAMES


def test_an_unknown_command_suggests_the_closest(capsys):
    assert main(["evalute"]) == 2
    assert "no command 'evalute'. Did you mean evaluate?" in capsys.readouterr().err


def test_no_command_is_a_mistake_that_shows_the_help(capsys):
    assert main([]) == 2
    assert "usage: lska-jax COMMAND" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lska-jax {lska_jax.__version__}\n"


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Return the help of every command, all from one fresh process, and what that loaded."""
    program = (
        "import sys\n"
        "from lska_jax.__main__ import main\n"
        f"for name in {NAMES}:\n"
        "    print('====', name)\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "main(['robustness', '--list'])\n"
        "print('==== loaded')\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    parts = re.split(r"^==== (.*)\n", done.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_shows_how_it_is_called(helps, name):
    usage, _, examples = helps[name].partition("examples:\n")
    assert usage.startswith(f"usage: lska-jax {name} ")
    assert f"  lska-jax {name} " in examples


def test_help_and_the_list_of_sets_load_nothing_heavy(helps):
    assert "ImageNet-Sketch" in helps["robustness"] + helps["report"] + helps["compile-check"]
    assert not HEAVY & set(helps["loaded"].split())
