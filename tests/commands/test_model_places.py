"""A model is taken from wherever it is: a folder, a run, a step, a file; what is not is said."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import small_config

import lska_jax
from lska_jax.commands import evaluate, export, predict, transfer
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from lska_jax.training.model_places import local_path, model_name, read_model
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.publish import publish
from lska_jax.training.recorded_config import config_of_run
from lska_jax.training.state import host_state
from lska_jax.weights import read_model_folder
from lska_jax.weights.export_torch import export_checkpoint

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with a run, its model folder, and a file of its weights."""
    root = tmp_path_factory.mktemp("places")
    config = small_config()
    state = host_state(
        building.build_model(config), make_optimizer(weight_decay=0.05), use_ema=False
    )
    record = {"config": config.to_dict(), "class_names": [*DIGITS], "steps_per_epoch": 6}
    with Checkpointer(root / "run=0.1" / "checkpoints") as checkpointer:
        checkpointer.save(6, state, metadata=record, metric=0.5)
    publish(root / "run=0.1", root / "folder", report=lambda line: None)
    export_checkpoint(root / "folder", root / "file.safetensors")
    return root


PLACES = ("folder", "run=0.1", "run=0.1/checkpoints", "run=0.1/checkpoints/6", "file.safetensors")
FILES_OF_FOLDERS = ("folder/model.safetensors", "folder/config.json")


@pytest.mark.parametrize("name", [*PLACES, *FILES_OF_FOLDERS])
def test_every_place_has_the_same_arrays(place, name):
    _, expected = read_model_folder(place / "folder")
    _, arrays = read_model(place / name, report=lambda line: None)
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[path], expected[path]) for path in expected)


def test_a_file_that_is_no_checkpoint_is_no_reason_to_install_pytorch(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model": {}}')
    with pytest.raises(ValueError, match=f"{path} is no checkpoint: .*give the folder"):
        read_model(path)


@pytest.mark.parametrize("name", ["run=0.1", "run=0.1/checkpoints/6"])
def test_a_run_predicts_with_the_names_that_were_trained(place, name, tmp_path, capsys):
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    assert predict.main([str(place / name), str(tmp_path / "a.png"), "--top", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert sorted(line.split("%")[1].split()[0] for line in lines) == [*DIGITS]


def test_from_python_a_run_predicts_what_its_folder_does(place, tmp_path):
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    of_run, of_folder = (
        lska_jax.predict(place / name, tmp_path / "a.png") for name in ("run=0.1", "folder")
    )
    assert of_run == of_folder


def test_a_run_is_transferred_and_exported(place, tmp_path):
    run = str(place / "run=0.1")
    assert transfer.main([run, "--k", "23", "--out", str(tmp_path / "k23")]) == 0
    assert read_model_folder(tmp_path / "k23")[0].config.k == 23
    assert export.main([run, str(tmp_path / "out.safetensors")]) == 0
    assert (tmp_path / "out.safetensors").read_bytes() == (place / "file.safetensors").read_bytes()


@pytest.mark.slow
def test_an_evaluation_without_a_config_takes_the_runs_own(place, tmp_path, capsys):
    words = ["--checkpoint", str(place / "run=0.1"), f"--workdir={tmp_path}"]
    assert evaluate.main([*words, "--config.training.eval_batch_size=40"]) == 0
    of_run = json.loads((tmp_path / "evaluation.json").read_text())
    checkpoint = str(place / "folder")
    config = config_of_run(place / "run=0.1")
    of_folder = lska_jax.evaluate(config, checkpoint=checkpoint, workdir=tmp_path / "folder")
    assert {name: of_run[name] for name in of_folder} == of_folder
    run = place / "run=0.1"
    assert lska_jax.evaluate(checkpoint=run, workdir=tmp_path / "python") == of_folder


def test_a_runs_config_comes_back_as_it_was(place):
    restored, config = config_of_run(place / "run=0.1"), small_config()
    assert restored.to_dict() == config.to_dict()
    assert restored.is_locked


def test_an_evaluation_of_a_model_folder_asks_for_a_config(place, capsys):
    assert evaluate.main(["--checkpoint", str(place / "folder")]) == 2
    assert "does not say which data to evaluate on: give a --config" in capsys.readouterr().err


def test_an_evaluation_of_nothing_asks_for_a_config(capsys):
    assert evaluate.main([]) == 2
    assert "--config is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", [predict.main, transfer.main, export.main])
def test_a_mistyped_folder_is_said_to_be_missing_with_its_neighbours(
    place, command, monkeypatch, capsys
):
    monkeypatch.chdir(place.parent)
    name = f"{place.name}/typo"
    rest = {predict.main: ["a.png"], transfer.main: ["--out", "out"], export.main: ["a.pth"]}
    Image.new("L", (8, 8)).save("a.png")
    assert command([name, *rest[command]]) == 2
    error = capsys.readouterr().err
    assert f"There is no folder or file {name}; {place.name} holds file.safetensors" in error
    assert f"of this name: hf-hub:{name}" in error


@pytest.mark.parametrize(
    "text", ["./org/name", "/org/name", "a/b/c", "na me", "../name", "org/name/", "runs/lr=0.1"]
)
def test_what_can_only_be_a_path_is_no_hub_id(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder or file"):
        local_path(text)


@pytest.mark.parametrize("text", ["org/name", "org/name@v1", "hf-hub:org/name", "org/a.b_c-d"])
def test_hub_ids_are_none_of_the_paths(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path(text) is None
    Path("org").mkdir()
    if not text.startswith("hf-hub:"):
        with pytest.raises(FileNotFoundError, match="There is no folder or file org/"):
            local_path(text)


def test_a_hub_id_that_cannot_be_had_says_that_there_is_no_such_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="There is no folder.* org/name"):
        read_model("org/name")


def test_what_is_neither_file_nor_folder_is_refused_without_a_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is neither a file nor a folder"):
        read_model(tmp_path / "pipe")


def test_names_of_models_are_the_last_part_of_their_place(tmp_path):
    (tmp_path / "k@35").mkdir()
    assert model_name(tmp_path / "k@35") == "k@35"
    assert model_name("org/name@v1") == "name"
