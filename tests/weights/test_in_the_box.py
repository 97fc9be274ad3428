"""Models that come with the package: by their names everywhere, small, and as their cards say."""

import dataclasses
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model, list_models
from lska_jax.commands import frame, predict
from lska_jax.models.weight_tags import weights_of
from lska_jax.training.model_places import KINDS, local_path, model_name, read_model
from lska_jax.weights import read_facts, read_model_folder, write_model_folder
from lska_jax.weights.folder_files import sha256_of
from lska_jax.weights.in_the_box import box_names, find_on_disk
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.safetensors_file import open_safetensors

BOX = Path(__file__).parents[2] / "lska_jax" / "weights" / "box"
MAX_BYTES = 3_000_000
NAMES = box_names()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Return an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record_of(name: str) -> dict:
    return json.loads((BOX / name / "config.json").read_text())


def test_the_models_are_the_folders_of_the_box():
    assert "cifar10" in NAMES
    assert sorted(NAMES) == sorted(path.name for path in BOX.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "box:"])
def test_a_name_stands_for_its_folder_wherever_a_model_is_taken(here, name, prefix):
    text = f"{prefix}{name}"
    assert find_on_disk(text) == local_path(text) == BOX / name
    assert model_name(text) == name
    expected = read_facts(BOX / name)
    facts, arrays = read_model(text)
    assert facts == expected == read_facts(text)
    assert arrays.keys() == read_model_folder(text)[1].keys()
    assert create_model(pretrained=text).preprocessing == expected.preprocessing


@pytest.mark.parametrize("name", NAMES)
def test_no_other_weights_have_the_name(name):
    assert name not in list_models()
    assert not [model for model in list_models() if name in weights_of(model)]


@pytest.mark.parametrize("name", NAMES)
def test_what_help_and_messages_list_has_every_name(name):
    assert name in frame.MODEL_PLACES and name in KINDS


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_the_box_is_small_and_stored_in_float16(name):
    weights = BOX / name / "model.safetensors"
    stored = open_safetensors(weights)
    assert weights.stat().st_size == record_of(name)["weights"]["bytes"] <= MAX_BYTES
    assert {array.dtype for array in stored.values() if len(array.shape) > 1} == {"float16"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_stored_ones_and_logits_are_finite(name):
    model = create_model(pretrained=name)
    model.eval()
    stored = open_safetensors(BOX / name / "model.safetensors")
    arrays = arrays_of(model)
    assert arrays.keys() == stored.keys()
    for path, array in stored.items():
        np.testing.assert_array_equal(arrays[path], array.read().astype(np.float32))
    size = model.preprocessing.image_size
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, size, 3)), jnp.float32)
    logits = nnx.jit(lambda network, batch: network(batch))(model, images)
    assert logits.shape == (2, model.config.num_classes) and logits.dtype == jnp.float32
    assert np.isfinite(np.asarray(logits)).all() and np.ptp(np.asarray(logits)) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_card_agrees_with_the_config(name):
    card, record = (BOX / name / "README.md").read_text(), record_of(name)
    assert (
        f"| Top-1, of the evaluation split | {100 * record['source']['eval/top1']:.2f} % |" in card
    )
    assert (
        f"| SHA-256 of model.safetensors | {sha256_of(BOX / name / 'model.safetensors')} |" in card
    )
    assert f'license: "{record["license"]}"' in card and f"# {name}\n" in card
    assert card.endswith((BOX / f"{name}.md").read_text())
    for subject in ("## Training", "## Licence", "lska-jax train --config"):
        assert subject in card


def test_a_folder_here_goes_before_the_name_and_the_prefix_before_it(here):
    facts, arrays = read_model_folder(BOX / "cifar10")
    facts = dataclasses.replace(facts, license="mine")
    write_model_folder(here / "cifar10", facts, arrays)
    assert read_model("cifar10")[0] == read_facts("cifar10") == facts
    assert read_model("box:cifar10")[0] == read_facts("box:cifar10") == read_facts(BOX / "cifar10")


def test_a_folder_here_that_is_no_model_is_refused_with_the_other_name(here, capsys):
    (here / "cifar10").mkdir()
    (here / "photo.jpg").touch()
    with pytest.raises(FileNotFoundError, match="that comes with the package is box:cifar10"):
        read_model("cifar10")
    with pytest.raises(FileNotFoundError, match="that comes with the package is box:cifar10"):
        create_model(pretrained="cifar10")
    assert predict.main(["cifar10", "photo.jpg"]) == 2
    assert "box:cifar10" in capsys.readouterr().err


def test_a_path_is_never_a_name(here):
    with pytest.raises(FileNotFoundError, match="There is no folder or file"):
        local_path(Path("cifar10"))
    with pytest.raises(FileNotFoundError, match="There is no folder or file cifar10"):
        local_path("./cifar10")


@pytest.mark.parametrize("unknown", ["cifar1", "box:cifar1"])
def test_an_unknown_name_lists_those_that_there_are(here, unknown):
    for look in (read_model, read_facts, lambda text: create_model(pretrained=text)):
        with pytest.raises(FileNotFoundError, match=re.escape("with the package: cifar10")):
            look(unknown)
    with pytest.raises((FileNotFoundError, ValueError), match="with the package: cifar10"):
        create_model("van_lska_tiny", pretrained=unknown)


def test_another_networks_name_beside_it_is_refused(here):
    with pytest.raises(ValueError, match="are of another architecture"):
        create_model("van_lska_base", pretrained="cifar10")
