"""``train.py`` from the command line: mistakes, the dry run, and where nothing can be written."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from lska_jax.training.checkpoint.checkpointer import Checkpointer

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 300
USAGE_ERROR = 2
HEAVY = ("jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "sklearn", "cv2", "scipy")

DIGITS = ("--config", str(ROOT / "configs" / "digits.py"))
TINY = (
    "--config.model.dims=(8,)",
    "--config.model.depths=(1,)",
    "--config.model.ffn_ratios=(2,)",
    "--config.model.k=11",
)


def run_train(
    *options: str, cwd: Path, python: tuple[str, ...] = (), devices: int = 1
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, str(ROOT / "train.py"), "--compilation_cache=off", *options],
        cwd=cwd,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            f"--xla_force_host_platform_device_count={devices}",
            # Set, train.py does not restart itself, and Python's own options stay.
            "GLIBC_TUNABLES": "",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


MISTAKES = {
    "unknown group": (["--config.modle.k=23"], ["'modle.k'", "Did you mean model.k"]),
    "unknown key": (["--config.model.kk=23"], ["'model.kk'", "Did you mean model.k", "model.dims"]),
    "a group for a key": (["--config.model=5"], ["'model'", "model.dims"]),
    "unknown flag": (["--worKdir=x"], ["worKdir", "workdir"]),
    "a word without dashes": (["digits"], ["['digits']", "every option starts with --"]),
    "text for a number": (["--config.model.k=big"], ["model.k=big", "Allowed: int", "model.k=23"]),
    "a fraction for a whole number": (
        ["--config.optimizer.epochs=1.5"],
        ["optimizer.epochs=1.5", "Allowed: int, as in optimizer.epochs=40"],
    ),
    "text for a switch": (["--config.model.remat=maybe"], ["maybe", "Allowed: bool"]),
    "text for an optional number": (["--config.model.dilation=two"], ["two", "Allowed: int"]),
    "text in a tuple": (["--config.data.mean=('a',)"], ["data.mean[0]='a' must be a number"]),
    "invalid k": (["--config.model.k=24"], ["k=24", "Nearest valid k: 23 or 29"]),
    "contradictions, all of them": (
        ["--config.optimizer.warmup_epochs=50", "--config.data.rand_augment=rand-m99"],
        ["warmup_epochs=50 must be below optimizer.epochs=40", "'m99' is outside 0 to 10"],
    ),
    "more classes than labels": (
        ["--config.model.num_classes=11"],
        ["model.num_classes=11", "has 10 classes", "--config.model.num_classes=10"],
    ),
    "a split that does not exist": (
        ["--config.data.eval_split=val"],
        ["no split 'val'", "train, test"],
    ),
    "training images for evaluation": (
        ["--config.data.eval_split=train"],
        ["are both 'train'", "Name another split"],
    ),
    "a batch larger than the data": (
        ["--config.training.batch_size=2048"],
        ["batch_size=2048 is larger than the 1442 examples"],
    ),
    "a folder that does not exist": (["--config.data.source=folder:/no/such"], ["/no/such"]),
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Iterator[Path]:
    """Return a folder to run in, and check afterwards that no mistake has left anything there."""
    folder = tmp_path_factory.mktemp("empty")
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_message_before_anything_heavy_is_imported(mistake, empty):
    options, said = MISTAKES[mistake]
    finished = run_train(*DIGITS, *options, cwd=empty, python=("-X", "importtime"))
    imports = re.compile(r"^import time:.*\|\s*(\S+)$", re.MULTILINE)
    imported = {name.split(".")[0] for name in imports.findall(finished.stderr)}
    assert "lska_jax" in imported
    assert imported.isdisjoint(HEAVY)
    message = imports.sub("", finished.stderr)
    assert finished.returncode == USAGE_ERROR
    assert "Error: " in message
    assert "Traceback" not in message
    for part in said:
        assert part in message


def test_help_imports_nothing_heavy(empty):
    finished = run_train("--help", cwd=empty, python=("-X", "importtime"))
    imported = set(re.findall(r"^import time:.*\|\s*(\w+)", finished.stderr, re.MULTILINE))
    assert "lska_jax" in imported and imported.isdisjoint(HEAVY)
    assert "--workdir" in finished.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--config is missing, as in: python train.py --config configs/digits.py"),
        (("--config", "configs/nothing.py"), "There is no config file configs/nothing.py"),
        ((DIGITS[0], f"{DIGITS[1]}:tiny"), "'tiny' is not understood"),
    ],
    ids=["none", "no such file", "bad argument"],
)
def test_a_config_that_cannot_be_loaded_is_one_message(options, said, empty):
    finished = run_train(*options, cwd=empty)
    assert finished.returncode == USAGE_ERROR
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--config.training.batch_size=60"],
            "batch_size=60 is not divisible by 8 (8 devices); nearest: 56 or 64",
        ),
        (["--config.training.fsdp=3"], "fsdp=3 does not divide the 8 devices; allowed: 1, 2, 4, 8"),
        (["--distributed=on"], "--distributed=on, but no cluster was found"),
        (["--num_processes=2"], "--coordinator_address, --num_processes and --process_id"),
        (["--eval_only", "--checkpoint=/no/such"], "no checkpoint in /no/such"),
    ],
    ids=lambda case: case[0] if isinstance(case, list) else "",
)
def test_what_does_not_fit_the_machine_ends_in_one_message(options, said, empty):
    finished = run_train(*DIGITS, *options, cwd=empty, devices=8)
    assert finished.returncode == USAGE_ERROR
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_workdir_that_cannot_be_written_ends_in_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    finished = run_train(*DIGITS, *TINY, f"--workdir={tmp_path / 'file' / 'run'}", cwd=tmp_path)
    assert finished.returncode == USAGE_ERROR
    assert "cannot write to" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_run_that_stops_itself_says_why_and_fails(tmp_path):
    """Every second digit's file is broken; the run ends with their paths and exit status 1."""
    for split in ("train", "test"):
        for label in range(2):
            (tmp_path / split / str(label)).mkdir(parents=True)
            for number in range(4):
                (tmp_path / split / str(label) / f"{number}.png").write_bytes(b"broken")
    finished = run_train(
        *DIGITS,
        *TINY,
        f"--config.data.source=folder:{tmp_path}",
        "--config.model.num_classes=2",
        "--config.training.batch_size=8",
        "--config.training.eval_batch_size=8",
        "--config.data.num_workers=0",
        f"--workdir={tmp_path / 'run'}",
        cwd=tmp_path,
    )
    assert finished.returncode == 1
    assert "Stopped: 8 of 8 images" in finished.stderr
    assert str(tmp_path / "train" / "0" / "0.png") in finished.stderr
    assert "Traceback" not in finished.stderr


def test_evaluating_a_damaged_checkpoint_names_the_file_and_fails(tmp_path):
    with Checkpointer(tmp_path / "checkpoints", asynchronous=False) as checkpointer:
        checkpointer.save(1, {"a": jnp.arange(4)}, metadata={}, metric=0.5)
    (damaged,) = (tmp_path / "checkpoints" / "1" / "state").glob("_METADATA")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    finished = run_train(*DIGITS, "--eval_only", f"--workdir={tmp_path}", cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.startswith("Stopped: ")
    assert "damaged" in finished.stderr
    assert "_METADATA" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.fixture(scope="module")
def dry_run(empty) -> str:
    """Return what the dry run of the ImageNet config says, without ImageNet, for a tiny network."""
    finished = run_train(
        "--config",
        str(ROOT / "configs" / "van_lska_base.py"),
        "--dry_run",
        *TINY,
        f"--config.data.data_dir={empty}",
        "--config.data.image_size=32",
        "--config.data.erase_prob=0.0",
        "--config.training.batch_size=64",
        "--config.training.eval_batch_size=64",
        cwd=empty,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    "line",
    [
        r"model +a VAN with lska, k=11, dims=.*, float32",
        r"devices +1 x cpu",
        r"mesh +data=1, fsdp=1",
        r"training examples +1,281,167 \(data not found here, assuming ImageNet-1K\)",
        r"global batch +64 \(64 a device\)",
        # 1,281,167 // 64 steps in each of 300 + 10 epochs.
        r"steps +6,205,580 \(20,018 an epoch\)",
        r"train state +[\d.]+ MB over all devices",
        r"train step FLOPs +[\d.]+ G, [\d.]+ G an image",
        r"train step memory a device +arguments [\d.]+ MB, temporaries [\d.]+ MB",
        r"evaluation step FLOPs +[\d.]+ G",
        r"evaluation step memory a device +arguments [\d.]+ MB",
    ],
)
def test_the_dry_run_says_what_a_run_would_be_and_cost(dry_run, line):
    assert re.search(f"^{line}", dry_run, re.MULTILINE)


def test_the_dry_run_counts_every_parameter(dry_run):
    import jax

    from lska_jax.nn.functional import parameters
    from lska_jax.weights.create import create_model

    sizes = {"dims": (8,), "depths": (1,), "ffn_ratios": (2,)}
    params = jax.eval_shape(lambda: parameters(create_model("van_lska_base", k=11, **sizes)))
    count = sum(array.size for array in params.values())
    assert re.search(rf"^parameters +{count:,}$", dry_run, re.MULTILINE)
