"""docs/add_a_model.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
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
            [sys.executable, "-m", "ruff", *check, *config, *FILES],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


TRAIN_ONCE = """
import lska_jax
from lska_jax.commands.export import main as export
from lska_jax.commands.convert import main as convert
from lska_jax.commands.publish import main as publish
config = lska_jax.load_config("configs/pool_digits.py")
config.optimizer.epochs = 2
config.training.batch_size = 240
lska_jax.train(config, workdir="once")
assert publish(["once", "--out", "folder"]) == 0
assert export(["folder", "once.safetensors"]) == 0
assert convert(["once.safetensors", "--out", "again", "--model", "pool_tiny"]) == 0
print(lska_jax.list_models("pool_*"), lska_jax.create_model(pretrained="again").config)
"""


def run(command: list[str], copy: Path) -> str:
    # "python" is the one that runs the tests, whether or not its environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(copy), "PATH": path}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_family_trains_and_its_weights_go_out_and_come_back(copy):
    printed = run([sys.executable, "-c", TRAIN_ONCE], copy)
    assert "['pool_tiny', 'pool_small'] PoolConfig(num_classes=10, in_channels=1" in printed
    assert "dims=(16, 32), window=3" in printed
    before, after = (copy / name / "model.safetensors" for name in ("folder", "again"))
    assert before.read_bytes() == after.read_bytes()


@pytest.mark.slow
def test_its_commands_work_one_after_the_other(copy):
    printed = run(["bash", "-c", " && ".join(COMMANDS)], copy)
    assert "['pool_tiny', 'pool_small']" in printed
    assert "pool_tiny, dims=(16, 32), 10 classes" in printed
    before, after = (copy / name / "model.safetensors" for name in ("pool_folder", "pool_again"))
    assert before.read_bytes() == after.read_bytes()
