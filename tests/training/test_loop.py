"""Real runs of the loop on two virtual devices: what they do, leave behind, and refuse."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small_runs import STEPS, STEPS_PER_EPOCH, TEST_EXAMPLES, small_config
from toy_family import FAMILY

from lska_jax.running.stop_signals import StopSignals
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import (
    Checkpointer,
    CheckpointMismatch,
    check_writable,
    load_tree,
)
from lska_jax.training.checkpoint.load_tree import CHECKPOINTS_FOLDER
from lska_jax.training.config import model_section
from lska_jax.training.evaluate_only import evaluate_checkpoint
from lska_jax.training.feeding import Oversight, TrainingStopped
from lska_jax.training.loop import make_reporter, train
from lska_jax.training.run import Sources
from lska_jax.training.state import host_state, place_state
from lska_jax.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("two_devices")


@pytest.fixture(scope="module")
def compiles() -> Iterator[list[str]]:
    """Return a list that grows by the name of every program that is compiled or read from disk."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **details: object) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(str(details["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def tiny_config() -> ConfigDict:
    config = small_config()
    config.training.update({"log_every_steps": 1, "checkpoint_every_steps": 0})
    return config


def with_toy_model(config: ConfigDict) -> ConfigDict:
    """Return the config with a model that compiles sooner; it has no BatchNorm."""
    classes = config.model.num_classes
    config.model = model_section(f"{FAMILY.name}_small", num_classes=classes, in_channels=1)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiles) -> tuple[Path, dict[str, float], dict[str, list[str]]]:
    """Return a finished run, its last evaluation, and which programs each part compiled."""
    config, workdir = tiny_config(), tmp_path_factory.mktemp("finished")
    run = building.build_run(config, num_train_examples=1442)
    state = host_state(building.build_model(config), run.optimizer, use_ema=True)
    state = place_state(state, run.mesh)
    compiled = {}
    with (
        Checkpointer(workdir / CHECKPOINTS_FOLDER, keep_latest=2, keep_best=1) as checkpointer,
        make_reporter(run, workdir, start_step=0, writers=("jsonl",)) as reporter,
    ):
        oversight = Oversight(StopSignals(), run.mesh, stall_seconds=0, reporter=reporter)
        trainer = Trainer(run, building.open_sources(run.task), checkpointer, reporter, oversight)
        compiles.clear()
        trainer.prepare(0, {})
        compiled["prepare"] = compiles.copy()
        compiles.clear()
        evaluation = trainer.fit(state)
        compiled["fit"] = compiles.copy()
    return workdir, evaluation, compiled


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_train_and_evaluation_step_are_compiled_once_and_nothing_else_is(finished):
    _, _, compiled = finished
    assert compiled["prepare"] == ["jit(train_step)", "jit(eval_step)"]
    # Orbax cuts replicated arrays into slices that the devices share to save; nothing of ours.
    assert set(compiled["fit"]) <= {"jit(slice)"}


def test_every_step_and_evaluation_is_in_the_metrics(finished):
    workdir, evaluation, _ = finished
    lines = metrics(workdir)
    steps = [line["step"] for line in lines if "train/loss" in line]
    assert steps == list(range(1, STEPS + 1))
    evaluations = [line for line in lines if "eval/top1" in line]
    assert [line["step"] for line in evaluations] == [STEPS_PER_EPOCH, STEPS]
    assert {name: evaluations[-1][name] for name in evaluation} == evaluation
    assert evaluation.keys() == {"eval/top1", "eval/top5", "eval/loss"}


def test_every_evaluation_example_counts_once_though_the_last_batch_is_padded(finished):
    _, evaluation, _ = finished
    for name in ("eval/top1", "eval/top5"):
        right = evaluation[name] * TEST_EXAMPLES
        np.testing.assert_allclose(right, round(right), atol=1e-9)


def test_evaluating_a_checkpoint_gives_the_numbers_that_training_reported(finished, tmp_path):
    workdir, _, _ = finished
    step = load_tree(workdir, step="best").step
    reported = next(x for x in metrics(workdir) if x["step"] == step and "eval/top1" in x)
    evaluation = evaluate_checkpoint(tiny_config(), workdir=tmp_path, checkpoint=workdir)
    assert evaluation == {name: reported[name] for name in evaluation}
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written == {"checkpoint": str(load_tree(workdir, step="best").folder)} | {
        name: reported[name] for name in ("step", *evaluation)
    }
    assert f"(epoch {reported['epoch']:.2f})" in (tmp_path / "log.txt").read_text()


def test_a_checkpoint_can_be_evaluated_on_the_split_it_was_trained_on(finished, tmp_path):
    workdir, _, _ = finished
    config = tiny_config()
    config.data.eval_split = "train"
    evaluation = evaluate_checkpoint(config, workdir=tmp_path, checkpoint=workdir)
    right = evaluation["eval/top1"] * 1442
    np.testing.assert_allclose(right, round(right), atol=1e-9)


def test_evaluating_with_another_model_is_refused_with_every_name(finished, tmp_path):
    config = tiny_config()
    config.model.dims = (16,)
    with pytest.raises(CheckpointMismatch, match=r"classifier/kernel: .*\(8, 10\).*\(16, 10\)"):
        evaluate_checkpoint(config, workdir=tmp_path, checkpoint=finished[0])


def test_running_a_finished_run_again_returns_its_evaluation_at_once(finished, compiles):
    workdir, evaluation, _ = finished
    compiles.clear()
    lines = metrics(workdir)
    assert train(tiny_config(), workdir=workdir) == evaluation
    assert "jit(train_step)" not in compiles
    assert metrics(workdir) == lines
    assert "is complete" in (workdir / "log.txt").read_text()


def test_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    """A step of this size makes the parameters so large that the next loss overflows."""
    config = with_toy_model(tiny_config())
    config.optimizer.update({"learning_rate": 1e30, "warmup_epochs": 0})
    config.training.update({"max_bad_steps": 3, "checkpoint_every_steps": 1, "keep_latest": 1})
    with pytest.raises(TrainingStopped) as caught:
        train(config, workdir=tmp_path)
    message = str(caught.value)
    assert "3 steps in a row were not finite, up to step 4" in message
    assert "step 1 is kept" in message
    assert "Lower optimizer.learning_rate" in message
    loaded = load_tree(tmp_path)
    assert loaded.step == loaded.tree["step"] == 1
    assert loaded.tree["bad_steps"] == 0
    for array in jax.tree.leaves(loaded.tree["params"]):
        assert np.all(np.isfinite(array))
    log = (tmp_path / "log.txt").read_text()
    for count in (1, 2, 3):
        assert f"Step {count + 1}: loss or gradient not finite, update skipped ({count} in" in log


def open_sources(config: ConfigDict) -> Sources:
    return building.open_sources(building.build_task(config))


def write_images(folder: Path, *, classes: int = 2, train_images: int = 8) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", train_images), ("test", 4)):
        for label in range(classes):
            (folder / split / f"class_{label}").mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"class_{label}" / f"{number}.png")


def folder_config(folder: Path, *, classes: int = 2) -> ConfigDict:
    config = tiny_config()
    config.model.num_classes = classes
    config.data.source = f"folder:{folder}"
    config.training.update({"batch_size": 8, "eval_batch_size": 8})
    return config


@pytest.fixture(scope="module")
def broken_source(tmp_path_factory) -> tuple[ConfigDict, list[Path]]:
    """Return a config of a folder, and its broken images: two for training, one for evaluation."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    broken = [
        folder / "train" / "class_0" / "3.png",
        folder / "train" / "class_1" / "5.png",
        folder / "test" / "class_1" / "0.png",
    ]
    broken[0].write_bytes(broken[0].read_bytes()[:60])
    broken[1].write_bytes(b"")
    broken[2].write_text("not an image")
    config = with_toy_model(folder_config(folder))
    config.training.batch_size = 16
    return config, broken


@pytest.fixture(scope="module")
def tolerant_run(broken_source, tmp_path_factory) -> Path:
    config, _ = broken_source
    # Just enough for an epoch's two of sixteen, and for the one of eight in the evaluation.
    config.data.max_broken_fraction = 1 / 8
    workdir = tmp_path_factory.mktemp("tolerant")
    train(config, workdir=workdir)
    return workdir


def test_broken_images_are_left_out_and_named_in_the_log(tolerant_run, broken_source):
    log = (tolerant_run / "log.txt").read_text()
    for path in broken_source[1]:
        assert log.count(f"Broken image left out: {path}") == 1


def test_the_share_of_broken_images_is_an_epochs_not_the_whole_runs(tolerant_run):
    assert [line["epoch"] for line in metrics(tolerant_run) if "train/loss" in line] == [1.0, 2.0]


def test_a_broken_evaluation_image_is_not_counted(tolerant_run):
    """Seven of eight images are left."""
    for line in metrics(tolerant_run):
        if "eval/top1" in line:
            right = line["eval/top1"] * 7
            np.testing.assert_allclose(right, round(right), atol=1e-9)


def test_too_many_broken_images_stop_the_run_with_their_list(broken_source, tmp_path):
    config, broken = broken_source
    config.data.max_broken_fraction = 1 / 16
    with pytest.raises(TrainingStopped) as caught:
        train(config, workdir=tmp_path)
    message = str(caught.value)
    assert "2 of 16 images" in message
    assert "data.max_broken_fraction" in message
    assert all(str(path) in message for path in broken[:2])


def test_too_many_broken_evaluation_images_stop_an_evaluation(
    broken_source, tolerant_run, tmp_path
):
    config, broken = broken_source
    config.data.max_broken_fraction = 0.0
    with pytest.raises(TrainingStopped, match="1 of 8 images") as caught:
        evaluate_checkpoint(config, workdir=tmp_path, checkpoint=tolerant_run)
    assert str(broken[2]) in str(caught.value)


def test_a_checkpoint_of_another_class_count_in_the_workdir_is_refused(finished, tmp_path):
    workdir, _, _ = finished
    write_images(tmp_path, classes=3)
    before = {p: p.read_bytes() for p in workdir.glob("[!.]*") if p.is_file()}
    with pytest.raises(CheckpointMismatch) as caught:
        train(folder_config(tmp_path, classes=3), workdir=workdir)
    message = str(caught.value)
    assert "nothing was loaded" in message
    assert "the run has 10 classes (0, 1, 2" in message and "the data has 3 (class_0, " in message
    for group in ("params", "ema/params", "opt_state/0/mu"):
        assert f"{group}/classifier/kernel: checkpoint has (8, 10), model wants (8, 3)" in message
    assert {p: p.read_bytes() for p in workdir.glob("[!.]*") if p.is_file()} == before


def test_an_empty_folder_is_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "class_0").mkdir(parents=True)
    with pytest.raises(ValueError, match="no image|empty"):
        open_sources(folder_config(tmp_path))


def test_a_missing_split_is_refused_with_the_splits_there_are(tmp_path):
    write_images(tmp_path)
    config = folder_config(tmp_path)
    config.data.eval_split = "extra"
    with pytest.raises(ValueError, match="no split 'extra'.*test, train"):
        open_sources(config)


def test_splits_with_different_classes_are_refused_with_the_difference(tmp_path):
    write_images(tmp_path)
    (tmp_path / "test" / "class_1").rename(tmp_path / "test" / "class_9")
    with pytest.raises(ValueError, match="different classes: class_1, class_9"):
        open_sources(folder_config(tmp_path))


def test_more_classes_than_the_model_has_are_refused_with_the_fix(tmp_path):
    write_images(tmp_path, classes=3)
    with pytest.raises(ValueError, match=r"has 3 classes; pass --config.model.num_classes=3"):
        open_sources(folder_config(tmp_path, classes=2))


def test_the_same_images_for_training_and_evaluation_are_refused(tmp_path):
    write_images(tmp_path)
    with pytest.raises(ValueError, match="would read the same images"):
        open_sources(folder_config(tmp_path / "train"))


def test_slices_that_overlap_are_refused(tmp_path):
    write_images(tmp_path)
    config = folder_config(tmp_path)
    config.data.eval_split = "train[50%:]"
    with pytest.raises(ValueError, match=r"have images in common.*train\[80%:\]"):
        open_sources(config)
    config.data.train_split = "train[:50%]"
    open_sources(config)


def test_a_workdir_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write to .*file"):
        train(tiny_config(), workdir=tmp_path / "file" / "run")


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_training(tmp_path):
    """A model of a million channels has parameters for no disk; none of them is computed."""
    config = tiny_config()
    config.model.dims = (1_000_000,)
    with pytest.raises(OSError, match="GB free and needs .* GB for the checkpoints"):
        train(config, workdir=tmp_path)


def test_a_full_disk_is_refused_and_no_probe_is_left(tmp_path, monkeypatch):
    def write_no_byte(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_no_byte)
    with pytest.raises(OSError, match="cannot write to .*No space left"):
        check_writable(tmp_path, bytes_needed=0)
    assert list(tmp_path.iterdir()) == []


def test_more_steps_than_a_counter_holds_are_refused():
    config = tiny_config()
    config.optimizer.epochs = 10**9
    with pytest.raises(ValueError, match="6000000000 steps are more than a 32-bit counter holds"):
        building.build_run(config, num_train_examples=1442)
