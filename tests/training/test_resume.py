"""What a start compares with what its workdir has trained, and what it says or refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small_runs import small_config
from toy_family import FAMILY

from lska_jax.running.folder_lock import FolderLock, InUse
from lska_jax.tasks import classification
from lska_jax.tasks.class_order import RelabelledSource
from lska_jax.training.checkpoint.checkpointer import (
    CheckpointDamaged,
    CheckpointMismatch,
    CheckpointWarning,
    load_tree,
)
from lska_jax.training.checkpoint.manifest import read_manifest, write_manifest
from lska_jax.training.config import model_section
from lska_jax.training.evaluate_only import evaluate_checkpoint
from lska_jax.training.loop import train
from lska_jax.training.publish import publish
from lska_jax.training.recorded_config import config_of_run
from lska_jax.training.reporting import Reporter
from lska_jax.training.run_record import check_finished_alike, check_same_schedule
from lska_jax.weights import read_model_folder

pytestmark = pytest.mark.usefixtures("two_devices")

CLASSES = ("ant", "bee", "cat")
IMAGES_OF_A_CLASS = 8
STEPS_PER_EPOCH = 3


def write_images(folder: Path, *, train_images: int = IMAGES_OF_A_CLASS) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", train_images), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(80 * label, 80 * label + 80, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def config_of(images: Path, **training) -> ConfigDict:
    config = small_config()
    config.model = model_section(f"{FAMILY.name}_small", num_classes=3, in_channels=1)
    config.data.source = f"folder:{images}"
    config.optimizer.update({"epochs": 2, "warmup_epochs": 0})
    config.training.update({"batch_size": 8, "eval_batch_size": 8, "log_every_steps": 2})
    config.training.update({"checkpoint_every_steps": 0, "writers": ("jsonl",), **training})
    return config


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("finished")
    train(config_of(images), workdir=workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
    """Return a copy of a finished run: two epochs of three steps."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def renamed(images, tmp_path) -> Path:
    """Return the images with one class renamed, so that all labels are shifted."""
    folder = Path(shutil.copytree(images, tmp_path / "renamed"))
    for split in ("train", "test"):
        (folder / split / "ant").rename(folder / split / "zebra")
    return folder


@pytest.fixture
def reversed_classes(monkeypatch) -> None:
    """Let folders have their classes in another order, as a catalogue of data sets might."""
    open_source = classification.open_source

    def open_reversed(*arguments, **options):
        source = open_source(*arguments, **options)
        return RelabelledSource(source, [2, 1, 0], source.class_names[::-1])

    monkeypatch.setattr(classification, "open_source", open_reversed)


def content(workdir: Path) -> dict[str, bytes]:
    """Return every file of a run but the lock."""
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def log_of(workdir: Path) -> str:
    return (workdir / "log.txt").read_text()


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# The schedule


@pytest.mark.parametrize("epochs", [2, 4])
def test_another_batch_size_is_refused_with_both_and_nothing_is_written(images, workdir, epochs):
    config, before = config_of(images, batch_size=16), content(workdir)
    config.optimizer.epochs = epochs
    with pytest.raises(ValueError) as caught:
        train(config, workdir=workdir)
    message = str(caught.value)
    assert "at step 6, epoch 2.00" in message
    assert "8 images a step, now 16; 3 steps an epoch, now 1" in message
    assert "--config.training.batch_size=8" in message
    assert f"--config.training.finetune_from={workdir}" in message
    assert content(workdir) == before


def test_more_images_are_refused_though_an_epoch_has_as_many_steps(images, workdir, tmp_path):
    more, before = Path(shutil.copytree(images, tmp_path / "more")), content(workdir)
    shutil.copy(more / "train" / "ant" / "0.png", more / "train" / "ant" / "more.png")
    with pytest.raises(ValueError, match=f"24 training images, now 25.*source=folder:{images}"):
        train(config_of(more), workdir=workdir)
    assert content(workdir) == before


def test_the_images_of_before_are_named_by_what_has_changed(images, workdir):
    config = config_of(images, batch_size=16)
    config.data.train_split = "train[:50%]"
    with pytest.raises(ValueError) as caught:
        train(config, workdir=workdir)
    message = str(caught.value)
    assert "24 training images, now 12" in message
    assert "batch_size=8" in message and "and give it --config.data.train_split=train." in message
    # The same settings, and another content of the folder.
    record = read_manifest(workdir / "checkpoints" / "6")["metadata"]
    run = SimpleNamespace(config=config_of(images), num_train_examples=25, steps_per_epoch=3)
    with pytest.raises(ValueError, match=f"give folder:{images} the 24 training images of before"):
        check_same_schedule(record, run, step=6, workdir=workdir)


def test_another_draw_of_what_is_held_out_is_refused(workdir, images):
    record = read_manifest(workdir / "checkpoints" / "6")["metadata"]
    config = config_of(images)
    config.data.update({"train_split": "train[:75%;seed=1]", "eval_split": "train[75%:;seed=1]"})
    run = SimpleNamespace(config=config, num_train_examples=24, steps_per_epoch=3)
    with pytest.raises(ValueError) as caught:
        check_same_schedule(record, run, step=6, workdir=workdir)
    assert "0 as the seed of the slices, now 1" in str(caught.value)
    assert "give it --config.data.train_split=train --config.data.eval_split=" in str(caught.value)


def test_an_unfinished_run_is_not_called_finished(images, workdir):
    record = read_manifest(workdir / "checkpoints" / "3")["metadata"]
    config = config_of(images)
    config.optimizer.epochs = 1
    with pytest.raises(ValueError, match="is at step 3 of 6, with another config:\n  optimizer.ep"):
        check_finished_alike(record, config, step=3, workdir=workdir)


def test_a_changed_network_is_refused_with_the_settings_that_changed(images, workdir):
    config, before = config_of(images), content(workdir)
    config.model = model_section(f"{FAMILY.name}_small", num_classes=3, in_channels=1, width=6)
    with pytest.raises(CheckpointMismatch, match="has changed since: model.width: .* -> 6. Give"):
        train(config, workdir=workdir)
    assert content(workdir) == before


def test_more_epochs_go_on_at_the_same_place_and_the_change_is_told_and_kept(images, workdir):
    config = config_of(images)
    config.optimizer.epochs = 3
    train(config, workdir=workdir)
    epochs = [line["epoch"] for line in metrics(workdir)]
    assert epochs == sorted(epochs) and epochs[-1] == 3
    assert [line["step"] for line in metrics(workdir) if "train/loss" in line] == [2, 4, 6, 8, 9]
    assert "optimizer.epochs: 2 -> 3" in log_of(workdir)
    saved = json.loads((workdir / "config.json").read_text())
    assert saved == json.loads(json.dumps(config.to_dict()))


def test_a_finished_run_with_another_config_is_refused_and_its_record_left(images, workdir):
    config, before = config_of(images), content(workdir)
    config.optimizer.weight_decay = 0.5
    config.evaluators.seen = {"split": "train"}
    with pytest.raises(ValueError) as caught:
        train(config, workdir=workdir)
    message = str(caught.value)
    assert "optimizer.weight_decay: 0.05 -> 0.5" in message
    assert "evaluators.seen.split: None -> train" in message
    assert "Nothing is left to train" in message
    assert content(workdir) == before


def test_fewer_epochs_than_are_trained_are_refused(images, workdir):
    config = config_of(images)
    config.optimizer.epochs = 1
    with pytest.raises(ValueError, match="at step 6, with another config:\n  optimizer.epochs: 2"):
        train(config, workdir=workdir)


def test_what_changes_no_number_leaves_a_finished_run_complete(images, workdir):
    before = content(workdir)
    config = config_of(images, log_every_steps=50, keep_latest=3)
    assert train(config, workdir=workdir) == load_tree(workdir).metadata["evaluation"]
    assert "is complete" in log_of(workdir)
    after = content(workdir)
    assert {name: after[name] for name in before if name != "log.txt"} == {
        name: before[name] for name in before if name != "log.txt"
    }


# The classes


def test_renamed_classes_are_refused_at_a_resume_with_both_lists(workdir, renamed):
    config, before = config_of(renamed), content(workdir)
    config.optimizer.epochs = 3
    with pytest.raises(ValueError) as caught:
        train(config, workdir=workdir)
    message = str(caught.value)
    assert "3 classes (ant, bee, cat)" in message and "has 3 (bee, cat, zebra)" in message
    assert content(workdir) == before


def test_renamed_classes_are_refused_in_an_evaluation(workdir, renamed, tmp_path):
    with pytest.raises(ValueError, match=r"\(ant, bee, cat\).*\(bee, cat, zebra\)"):
        evaluate_checkpoint(config_of(renamed), workdir=tmp_path / "out", checkpoint=workdir)
    assert not (tmp_path / "out").exists()


def test_another_order_of_the_same_classes_is_mapped_in_an_evaluation(
    images, workdir, tmp_path, reversed_classes
):
    measured = evaluate_checkpoint(config_of(images), workdir=tmp_path, checkpoint=workdir)
    best = load_tree(workdir, step="best")
    assert measured == best.metadata["evaluation"]
    assert "another order: labels are mapped by name" in log_of(tmp_path)


def test_a_resume_maps_another_order_and_keeps_the_runs(images, workdir, reversed_classes):
    config = config_of(images)
    config.optimizer.epochs = 3
    train(config, workdir=workdir)
    assert "another order: labels are mapped by name" in log_of(workdir)
    assert load_tree(workdir).metadata["class_names"] == [*CLASSES]


def test_the_names_that_were_trained_are_published(finished, images, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = publish(folder, tmp_path / "out", report=lambda line: None)
    assert facts.class_names == read_model_folder(tmp_path / "out")[0].class_names == CLASSES


def test_given_names_are_published_unless_they_are_the_trained_ones_in_another_order(
    finished, tmp_path
):
    said: list[str] = []
    names = ("Ameise", "Biene", "Katze")
    facts = publish(finished, tmp_path / "out", class_names=names, report=said.append)
    assert facts.class_names == names
    assert "Classes renamed from ant, bee, cat to Ameise, Biene, Katze." in said
    with pytest.raises(ValueError, match=r"another order.*\(ant, bee, cat\).*\(cat, bee, ant\)"):
        publish(finished, tmp_path / "other", class_names=CLASSES[::-1], report=said.append)


# Two at once, and what lies in the folder


def test_a_second_run_in_a_workdir_is_refused(images, workdir):
    before = content(workdir)
    with FolderLock(workdir, what="run"), pytest.raises(InUse, match="is in use by process"):
        train(config_of(images), workdir=workdir)
    assert content(workdir) == before


@pytest.mark.parametrize(
    "loss",
    [
        shutil.rmtree,
        pytest.param(lambda folder: folder.rename(f"{folder}.moved"), marks=pytest.mark.slow),
    ],
)
def test_a_workdir_that_goes_away_ends_the_run_with_an_error(images, tmp_path, monkeypatch, loss):
    workdir = tmp_path / "run"
    report = Reporter.evaluation

    def lose(self, *arguments, **named):
        report(self, *arguments, **named)
        loss(workdir)

    monkeypatch.setattr(Reporter, "evaluation", lose)
    with pytest.raises(FileNotFoundError, match="was deleted, moved or replaced while the run"):
        train(config_of(images), workdir=workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    "damage",
    ["{", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("", "[1]", "\x00"))],
)
def test_a_damaged_config_of_the_workdir_is_named_and_written_anew(images, workdir, damage):
    (workdir / "config.json").write_text(damage)
    config = config_of(images)
    config.optimizer.epochs = 3
    train(config, workdir=workdir)
    assert f"{workdir / 'config.json'} is damaged and is written anew" in log_of(workdir)
    assert json.loads((workdir / "config.json").read_text())["optimizer"]["epochs"] == 3


WRONG = {
    "class_names": [1, 2, 3],
    "evaluation": [0.5],
    "is_evaluation_due": "no",
    "steps_per_epoch": 0,
    "num_train_examples": 24.5,
    "open_record": {"sums": {"loss": "1"}, "counts": {"loss": 1}},
    "broken_in_epoch": -1,
    "config": 5,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("class_names", "config") else pytest.mark.slow)
        for name in WRONG
    ],
)
def test_a_record_of_wrong_types_falls_back_to_the_step_before(images, workdir, name):
    """The hashes fit: somebody wrote it so."""
    folder = workdir / "checkpoints" / "6"
    manifest = read_manifest(folder)
    record = {**manifest["metadata"], name: WRONG[name]}
    write_manifest(folder, step=6, metadata=record, metric=manifest["metric"])
    with pytest.warns(CheckpointWarning, match=f"manifest.json: {name} is .*Going on from step 3"):
        train(config_of(images), workdir=workdir)
    assert load_tree(workdir).step == 6
    assert (workdir / "checkpoints" / "6.damaged").is_dir()


@pytest.mark.parametrize("use", ["evaluation", "publication", "config"])
def test_a_record_of_wrong_types_is_damage_wherever_it_is_read(images, workdir, tmp_path, use):
    for folder in (workdir / "checkpoints").iterdir():
        manifest = read_manifest(folder)
        record = {**manifest["metadata"], "class_names": 5}
        write_manifest(folder, step=manifest["step"], metadata=record, metric=manifest["metric"])
    with pytest.raises(CheckpointDamaged, match="manifest.json is damaged: class_names is 5"):
        if use == "evaluation":
            evaluate_checkpoint(config_of(images), workdir=tmp_path / "out", checkpoint=workdir)
        elif use == "publication":
            publish(workdir, tmp_path / "out", report=lambda line: None)
        else:
            config_of_run(workdir)


@pytest.mark.parametrize("config", [{}, {"model": 5}, {"model": {"name": "toy_small"}, "data": 1}])
def test_a_config_of_no_run_is_one_message(workdir, tmp_path, config):
    for folder in (workdir / "checkpoints").iterdir():
        manifest = read_manifest(folder)
        record = {**manifest["metadata"], "config": config}
        write_manifest(folder, step=manifest["step"], metadata=record, metric=manifest["metric"])
    with pytest.raises((ValueError, CheckpointDamaged), match="checkpoints/\\d"):
        publish(workdir, tmp_path / "out", report=lambda line: None)


def test_a_step_under_another_number_falls_back_to_the_step_before(images, workdir):
    (workdir / "checkpoints" / "6").rename(workdir / "checkpoints" / "5")
    with pytest.warns(CheckpointWarning, match="is of step 6: it was renamed.*from step 3"):
        train(config_of(images), workdir=workdir)
    assert load_tree(workdir).step == 6


def test_names_in_other_digits_are_no_steps(images, workdir):
    (workdir / "checkpoints" / "٩").mkdir()
    (workdir / "checkpoints" / "007").mkdir()
    train(config_of(images), workdir=workdir)
    assert "is complete" in log_of(workdir)
