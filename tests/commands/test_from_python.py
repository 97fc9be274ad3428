"""Training, evaluating and predicting by calls, in a process that goes on afterwards."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small_runs import two_devices as two_devices
from toy_family import FAMILY

import lska_jax
from lska_jax.commands import own_data
from lska_jax.commands import train as train_command
from lska_jax.commands.config_option import change_config
from lska_jax.running.borrowed_signals import BorrowedSignals
from lska_jax.running.stop_signals import StopRequested
from lska_jax.training import loop
from lska_jax.training.checkpoint.load_tree import load_tree
from lska_jax.training.config import model_section
from lska_jax.training.publish import publish
from lska_jax.training.trainer import Interrupted

pytestmark = pytest.mark.usefixtures("two_devices")

ROOT = Path(__file__).parents[2]


def tiny_config(**training) -> ConfigDict:
    config = lska_jax.load_config("digits:7")
    config.model = model_section(f"{FAMILY.name}_small", num_classes=10, in_channels=1)
    config.data.num_workers = 0
    config.optimizer.update({"epochs": 2, "warmup_epochs": 1})
    config.training.update({"batch_size": 240, "eval_batch_size": 120, **training})
    return config


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Check that handlers of signals are what they were."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, float], str]:
    """Return the workdir of a run, its evaluation and what it printed; a thread trained it."""
    workdir = tmp_path_factory.mktemp("trained")
    with contextlib.redirect_stdout(io.StringIO()) as said, ThreadPoolExecutor() as threads:
        evaluation = threads.submit(lska_jax.train, tiny_config(), workdir=workdir).result()
    return workdir, evaluation, said.getvalue()


def test_a_run_is_trained_evaluated_published_and_predicts(trained, tmp_path):
    workdir, evaluation, _ = trained
    assert lska_jax.evaluate(tiny_config(), workdir=workdir) == pytest.approx(evaluation)
    publish(workdir, tmp_path / "model", report=lambda line: None)
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    (prediction,) = lska_jax.predict(tmp_path / "model", tmp_path / "digit.png", top=3)
    assert len(prediction.scores) == 3


def test_the_start_is_counted_from_the_call(trained):
    seconds = re.search(r"Ready after ([\d.]+) s \(imports ([\d.]+)", trained[2])
    # The process has imported jax long before; so much a call does not take.
    assert float(seconds[2]) <= 0.1 * float(seconds[1])


def test_an_interrupt_saves_and_raises(tmp_path, monkeypatch):
    report = loop.Trainer._report

    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Trainer, "_report", interrupt)
    with pytest.raises(Interrupted, match=r"SIGINT after step \d+, which is saved. The same call"):
        lska_jax.train(tiny_config(), workdir=tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]


def test_an_interrupt_before_anything_can_be_saved_is_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), BorrowedSignals():
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_what_is_waited_for():
    with BorrowedSignals() as signals:
        signals.keep_requests()
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.is_requested
        with pytest.raises(StopRequested), signals.interruptible():
            pytest.fail("waited")


def test_sigterm_reaches_the_process_when_the_work_is_saved():
    program = (
        "import os, signal\n"
        "from lska_jax.running.borrowed_signals import BorrowedSignals\n"
        "with BorrowedSignals() as signals:\n"
        "    signals.keep_requests()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('saved', flush=True)\n"
        "print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "saved\n"


def test_a_config_object_needs_a_workdir():
    with pytest.raises(ValueError, match="workdir is missing"):
        lska_jax.train(tiny_config())


def test_mistakes_are_those_of_the_command_line(tmp_path):
    with pytest.raises(ValueError, match="divisible by 8"):
        lska_jax.train(tiny_config(batch_size=60), workdir=tmp_path / "run")
    with pytest.raises(ValueError, match="Did you mean digits"):
        lska_jax.evaluate("digts")
    assert not (tmp_path / "run").exists()


def write_photos(root: Path) -> Path:
    for label, grey in (("ant", 40), ("bee", 200)):
        (root / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (32, 32), (grey, 5 * n, 0)).save(root / label / f"{n}.png")
    return root


@pytest.mark.slow
def test_images_need_no_config_and_the_kept_settings_give_the_same_run_to_the_bit(tmp_path, capsys):
    photos = write_photos(tmp_path / "photos")
    asked = {"model": f"{FAMILY.name}_small", "epochs": 2, "batch_size": 8}
    changes = {"data.num_workers": 0, "training.patience": 2, "data.rand_augment": ""}
    workdir = tmp_path / "run"
    evaluation = lska_jax.train(data=photos, **asked, changes=changes, workdir=workdir)
    said = capsys.readouterr().out
    assert "16 images to train on and 4 held out" in said
    assert f"worst mistakes: {workdir / 'report' / 'report.html'}" in said
    assert (workdir / "report" / "report.html").is_file()
    # The command line's own choices, from the same words.
    words = ["--data", str(photos), "--model", "toy_small", "--epochs", "2", "--batch_size", "8"]
    words += ["--config.data.num_workers=0", "--config.training.patience=2"]
    arguments = train_command._build_parser("train").parse_known_args(words)[0]
    config = own_data.make_config(arguments)
    assert change_config(config, [*words[8:], "--config.data.rand_augment="]) == []
    kept = workdir / "config.json"
    assert config == lska_jax.load_config(kept)
    again = tmp_path / "again"
    assert train_command.main(["--config", str(kept), "--workdir", str(again)]) == 0
    one, other = (load_tree(folder, step="latest", skip=()) for folder in (workdir, again))
    jax.tree.map(np.testing.assert_array_equal, one.tree, other.tree)
    assert one.metadata["evaluation"] == other.metadata["evaluation"]
    assert one.metadata["evaluation"] == pytest.approx(evaluation)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Give a config, or data="),
        ({"config": "digits", "data": "photos"}, "one of the two"),
        ({"config": "digits", "epochs": 3}, "epochs= goes with data="),
        ({"config": "digits", "start": "x"}, "start= goes with data="),
        ({"config": "digits", "changes": {"data.view": "flip"}}, "Unknown config key 'data.view'"),
        (
            {"config": "digits", "changes": {"training.seed": "x"}},
            "'x' has the wrong type",
        ),
        ({"data": "./nowhere"}, "There is no ./nowhere"),
    ],
)
def test_what_does_not_go_together_is_said(asked, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        lska_jax.train(**asked, workdir=tmp_path)


def test_a_dry_run_says_what_the_steps_need_without_a_workdir():
    said = lska_jax.dry_run(tiny_config(fsdp=2))
    assert "mesh                             data=1, fsdp=2" in said
    assert "train step memory a device" in said


def test_a_compile_check_returns_what_it_prints_and_leaves_the_config_alone(capsys):
    config = tiny_config()
    result = lska_jax.compile_check(config, topology="cuda:2", only="train")
    assert result["train"]["devices"] == 2
    assert "evaluation" not in result
    assert config.training.batch_size == 240
    assert "exports for 2 cuda device(s)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="only='training' is no step; allowed: train, evaluation"):
        lska_jax.compile_check(config, topology="cuda:2", only="training")


@pytest.mark.parametrize("name", ["predict_objects", "predict_label_maps"])
def test_a_classifier_finds_no_objects_and_classifies_no_pixels(name, trained, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="finds no objects|classifies no pixels"):
        getattr(lska_jax, name)(trained[0], tmp_path / "photo.png")
