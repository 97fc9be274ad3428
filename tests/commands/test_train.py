"""Training from the command line: mistakes, the dry run, and where nothing can be written."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from lska_jax.commands import evaluate
from lska_jax.commands.train import main
from lska_jax.training.checkpoint.checkpointer import Checkpointer

ROOT = Path(__file__).parents[2]
USAGE_ERROR = 2
HEAVY = ("jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "sklearn", "cv2", "scipy")

DIGITS = ("--config", "digits")
TINY = (
    "--config.model.dims=(8,)",
    "--config.model.depths=(1,)",
    "--config.model.ffn_ratios=(2,)",
    "--config.model.k=11",
)


@pytest.fixture
def run(capsys):
    """Return what runs one command line here: its status, its output and its errors."""

    def run_here(*options: str, command=main) -> tuple[int, str, str]:
        try:
            status = command(list(options))
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run_here


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
def mistaken(tmp_path_factory) -> Iterator[dict[str, tuple[int, str]]]:
    """Return status and message of every mistake, made in one fresh process in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    program = (
        "import contextlib, io, json, sys\n"
        "from lska_jax.commands.train import main\n"
        "answers = {}\n"
        "for name, options in json.load(sys.stdin).items():\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        try: status = main(options)\n"
        "        except SystemExit as end: status = end.code\n"
        "    answers[name] = status, said.getvalue()\n"
        f"answers['heavy'] = sorted(set({HEAVY}) & set(sys.modules)), ''\n"
        "print(json.dumps(answers))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({name: [*DIGITS, *options] for name, (options, _) in MISTAKES.items()}),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    yield json.loads(done.stdout)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_message(mistake, mistaken):
    status, message = mistaken[mistake]
    assert status == USAGE_ERROR
    assert message.startswith("Error: ")
    for part in MISTAKES[mistake][1]:
        assert part in message


def test_no_mistake_imports_anything_heavy(mistaken):
    assert mistaken["heavy"][0] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--config.training.batch_size=60"],
            "batch_size=60 is not divisible by 8 (8 devices); nearest: 56 or 64",
        ),
        (["--config.training.fsdp=3"], "fsdp=3 does not divide the 8 devices; allowed: 1, 2, 4, 8"),
        (["--num_processes=2"], "--coordinator_address, --num_processes and --process_id"),
        (["--eval_only", "--checkpoint=/no/such"], "There is no folder or file /no/such"),
    ],
    ids=lambda case: case[0] if isinstance(case, list) else "",
)
def test_what_does_not_fit_the_machine_ends_in_one_message(run, options, said, tmp_path):
    status, _, errors = run(*DIGITS, *options, f"--workdir={tmp_path}")
    assert status == USAGE_ERROR
    assert errors.startswith("Error: ") and said in errors
    assert list(tmp_path.iterdir()) == []


def test_evaluating_takes_the_checkpoint_of_the_workdir(run, tmp_path):
    status, _, errors = run(*DIGITS, f"--workdir={tmp_path}", command=evaluate.main)
    assert status == USAGE_ERROR
    assert f"no checkpoint in {tmp_path}" in errors


def test_a_workdir_that_cannot_be_written_ends_in_one_message(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, errors = run(*DIGITS, *TINY, f"--workdir={tmp_path / 'file' / 'run'}")
    assert status == USAGE_ERROR
    assert "cannot write to" in errors.lower()


@pytest.mark.slow
def test_a_run_that_stops_itself_says_why_and_fails(run, tmp_path):
    """Every image is broken; the run ends with their paths and exit status 1."""
    for split in ("train", "test"):
        for label in range(2):
            (tmp_path / split / str(label)).mkdir(parents=True)
            for number in range(4):
                (tmp_path / split / str(label) / f"{number}.png").write_bytes(b"broken")
    status, _, errors = run(
        *DIGITS,
        *TINY,
        f"--config.data.source=folder:{tmp_path}",
        "--config.model.num_classes=2",
        "--config.training.batch_size=8",
        "--config.training.eval_batch_size=8",
        "--config.data.num_workers=0",
        f"--workdir={tmp_path / 'run'}",
    )
    assert status == 1
    assert "Stopped: 8 of 8 images" in errors
    assert str(tmp_path / "train" / "0" / "0.png") in errors


def test_evaluating_a_damaged_checkpoint_names_the_file_and_fails(run, tmp_path):
    with Checkpointer(tmp_path / "checkpoints", asynchronous=False) as checkpointer:
        checkpointer.save(1, {"a": jnp.arange(4)}, metadata={}, metric=0.5)
    (damaged,) = (tmp_path / "checkpoints" / "1" / "state").glob("_METADATA")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    status, _, errors = run(*DIGITS, "--eval_only", f"--workdir={tmp_path}")
    assert status == 1
    assert errors.startswith("Stopped: ")
    assert "damaged" in errors and "_METADATA" in errors


def test_the_door_in_a_clone_takes_the_same_options_and_gives_the_same_status(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *DIGITS, "--worKdir=x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == USAGE_ERROR
    assert "no option --worKdir. Did you mean --workdir? See python train.py --help" in done.stderr


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> str:
    """Return what the dry run of the ImageNet config says, without ImageNet, for a tiny network."""
    options = [
        *("--config", "configs/van_lska_base.py", "--dry_run", *TINY),
        f"--config.data.data_dir={tmp_path_factory.mktemp('empty')}",
        "--config.data.image_size=32",
        "--config.data.erase_prob=0.0",
        "--config.training.batch_size=64",
        "--config.training.eval_batch_size=64",
    ]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(options) == 0
    return said.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        r"model +a VAN with lska, k=11, dims=.*, float32",
        r"devices +8 x cpu",
        r"mesh +data=8, fsdp=1",
        r"training examples +1,281,167 \(data not found here, assuming ImageNet-1K\)",
        r"global batch +64 \(8 a device\)",
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


@pytest.mark.slow
def test_the_dry_run_counts_every_parameter(dry_run):
    import jax

    from lska_jax.nn.functional import parameters
    from lska_jax.weights.create import create_model

    sizes = {"dims": (8,), "depths": (1,), "ffn_ratios": (2,)}
    params = jax.eval_shape(lambda: parameters(create_model("van_lska_base", k=11, **sizes)))
    count = sum(array.size for array in params.values())
    assert re.search(rf"^parameters +{count:,}$", dry_run, re.MULTILINE)
