"""docs/add_a_model.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("copy")
    for name in ("lska_jax", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", copy)
    for path, text in FILES.items():
        (copy / path).write_text(text)
    return copy


def test_the_page_names_every_file_of_a_family():
    assert list(FILES) == [
        "lska_jax/models/pool_config.py",
        "lska_jax/models/pool.py",
        "lska_jax/weights/names/pool.py",
        "configs/pool_digits.py",
    ]


def test_its_files_are_formatted_and_linted_as_those_of_the_package(copy):
    config = ["--config", str(ROOT / "pyproject.toml")]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            ["ruff", *check, *config, *FILES], cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_commands_work_one_after_the_other(copy):
    script = " && ".join(COMMANDS)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "['pool_tiny', 'pool_small']" in done.stdout
    assert "a Pool of (16, 32), 10 classes" in done.stdout
    before, after = (copy / name / "model.safetensors" for name in ("pool_folder", "pool_again"))
    assert before.read_bytes() == after.read_bytes()
