"""From a run's checkpoint to a model folder."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lska_jax import create_model
from lska_jax.commands.publish import main
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.publish import publish
from lska_jax.training.state import host_state
from lska_jax.weights import read_model_folder
from lska_jax.weights.pretrained import arrays_of

ROOT = Path(__file__).parents[2]


def config_of(**model) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]("11")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,), **model})
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a run's folder: step 2 the best, step 4 the latest; averages are halves."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of()
    state = host_state(
        building.build_model(config), make_optimizer(weight_decay=0.05), use_ema=True
    )
    half = jax.tree.map(lambda x: x / 2, state.ema)
    metadata = {"config": config.to_dict(), "evaluation": {"eval/top1": 0.9}}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(2, state._replace(ema=half), metadata=metadata, metric=0.9)
        checkpointer.save(4, state, metadata=metadata, metric=0.5)
    return workdir


@pytest.fixture(scope="module")
def trained() -> dict[str, np.ndarray]:
    return arrays_of(building.build_model(config_of()))


def test_the_best_steps_averages_and_the_runs_facts_are_published(run, trained, tmp_path):
    publish(run, tmp_path / "out", report=lambda line: None)
    facts, arrays = read_model_folder(tmp_path / "out")
    assert all(np.array_equal(arrays[path], trained[path] / 2) for path in trained)
    config = config_of()
    assert facts.preprocessing.mean == tuple(config.data.mean)
    assert facts.preprocessing.image_size == config.data.image_size
    assert facts.class_names == tuple("0123456789")
    assert facts.config.k == 11 and facts.config.in_channels == config.model.in_channels
    assert facts.source["step"] == 2 and facts.source["weights"] == "averaged (EMA)"
    assert facts.source["eval/top1"] == 0.9


@pytest.mark.parametrize(
    ("arguments", "factor"),
    [(["--ema"], 0.5), (["--no-ema"], 1), (["--step", "latest"], 1), (["--step", "2"], 0.5)],
)
def test_step_and_averages_can_be_chosen(run, trained, tmp_path, arguments, factor, capsys):
    assert main([str(run), "--out", str(tmp_path / "out"), *arguments]) == 0
    arrays = read_model_folder(tmp_path / "out")[1]
    assert all(np.array_equal(arrays[path], trained[path] * factor) for path in trained)
    assert "create_model(pretrained=" in capsys.readouterr().out


def test_a_score_is_published_only_with_the_weights_it_was_measured_on(run, tmp_path):
    facts = publish(run, tmp_path / "out", use_ema=False, report=lambda line: None)
    assert facts.source["weights"] == "as trained" and "eval/top1" not in facts.source


def test_a_published_model_computes_what_the_run_computed(run, tmp_path):
    publish(run, tmp_path / "out", use_ema=False, report=lambda line: None)
    loaded, trained = create_model(pretrained=tmp_path / "out"), building.build_model(config_of())
    loaded.eval()
    trained.eval()
    size = config_of().data.image_size
    x = np.random.default_rng(0).standard_normal((2, size, size, 1)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(lambda x: loaded(x))(x), jax.jit(lambda x: trained(x))(x))


def test_averages_that_were_not_kept_are_an_error(tmp_path, capsys):
    config = config_of()
    state = host_state(
        building.build_model(config), make_optimizer(weight_decay=0.05), use_ema=False
    )
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(1, state, metadata={"config": config.to_dict()})
    command = [str(tmp_path / "run"), "--step", "latest", "--out", str(tmp_path / "out")]
    assert main([*command, "--ema"]) == 2
    assert "holds no averaged weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no checkpoint in" in capsys.readouterr().err


def test_finetuning_starts_from_a_model_folder(run, trained, tmp_path):
    publish(run, tmp_path / "out", use_ema=False, report=lambda line: None)
    model = building.build_model(config_of(num_classes=3))
    message = load_for_finetuning(model, tmp_path / "out")
    assert f"Starting from {tmp_path / 'out'}" in message and "fresh head" in message
    assert "trained with mean" in message
    loaded = arrays_of(model)
    assert all(
        np.array_equal(loaded[path], trained[path])
        for path in trained
        if not path.startswith("classifier")
    )
    assert loaded["classifier/kernel"].shape == (8, 3)
