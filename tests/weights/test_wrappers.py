"""Networks among other arrays: prefixes of any kind, averages, losses, files in several parts."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import small_state_dict, write_safetensors

from lska_jax.weights import import_checkpoint, read_model_folder
from lska_jax.weights.checkpoint_file import open_checkpoint
from lska_jax.weights.wrappers import unwrap

PLAIN = small_state_dict()


def prefixed(prefix: str) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in PLAIN.items()}


def imported(tmp_path, state_dict, **options):
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    lines: list[str] = []
    facts = import_checkpoint(path, tmp_path / "out", report=lines.append, **options)
    return facts, read_model_folder(tmp_path / "out")[1], "\n".join(lines)


@pytest.mark.parametrize(
    "prefix",
    ["net.", "student.encoder.", "module._orig_mod.", "_forward_module.model.backbone.network."],
)
def test_any_prefix_in_front_of_all_names_is_taken_off(tmp_path, prefix):
    opened = open_checkpoint(write_safetensors(tmp_path / "a.safetensors", prefixed(prefix)))
    assert opened.arrays.keys() == PLAIN.keys() and opened.notes == []


def test_wrappers_inside_names_are_taken_off(tmp_path):
    names = {name.replace("block1.0.", "block1.0._orig_mod."): a for name, a in PLAIN.items()}
    opened = open_checkpoint(write_safetensors(tmp_path / "a.safetensors", names))
    assert opened.arrays.keys() == PLAIN.keys()


def test_an_averaged_model_is_taken_with_its_counter_aside(tmp_path):
    averaged = {"n_averaged": np.array(5, np.int64), **prefixed("module.")}
    facts, arrays, text = imported(tmp_path, averaged)
    np.testing.assert_array_equal(arrays["classifier/bias"], PLAIN["head.bias"])
    assert facts.source["weights"] == "averaged"
    assert "These are averaged weights." in text
    assert "not read beside it: n_averaged (1) arrays" in text


def test_a_model_beside_a_loss_is_taken_and_the_rest_is_named(tmp_path):
    others = {"loss.weight": np.ones(3), "metrics.top1.sum": np.ones(1)}
    _, arrays, text = imported(tmp_path, {**prefixed("model."), **others})
    np.testing.assert_array_equal(arrays["classifier/bias"], PLAIN["head.bias"])
    assert "Took the model; not read beside it: loss (1), metrics (1) arrays." in text


@pytest.mark.parametrize(("use_ema", "value"), [(False, 0.0), (True, 1.0)])
def test_an_average_beside_the_trained_network_is_taken_when_asked_for(tmp_path, use_ema, value):
    both = {
        prefix + name: np.full_like(array, fill)
        for prefix, fill in (("model.", 0.0), ("model_ema.", 1.0))
        for name, array in PLAIN.items()
    }
    facts, arrays, _ = imported(tmp_path, both, use_ema=use_ema)
    assert (arrays["classifier/bias"] == value).all()
    assert facts.source["weights"] == ("averaged" if use_ema else "as trained")


def test_an_average_that_is_not_there_is_refused(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", PLAIN)
    with pytest.raises(ValueError, match="holds no averaged weights"):
        open_checkpoint(path, use_ema=True)


def test_two_networks_are_refused_by_name(tmp_path):
    names = [*prefixed("student."), *prefixed("teacher.")]
    with pytest.raises(ValueError, match=r"holds 2 networks, under student\., teacher\."):
        unwrap(names, tmp_path)


def test_a_name_with_and_without_the_prefix_is_refused(tmp_path):
    names = [*prefixed("model."), "block1.0.layer_scale_1"]
    with pytest.raises(ValueError, match="others without: block1.0.layer_scale_1"):
        unwrap(names, tmp_path)


def test_another_network_is_no_family_of_ours(tmp_path):
    names = [f"layer{s}.{b}.conv{c}.weight" for s in (1, 2) for b in (0, 1) for c in (1, 2)]
    state_dict = {name: np.ones((4, 4, 3, 3), np.float32) for name in (*names, "norm1.weight")}
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    with pytest.raises(ValueError, match="of 9 arrays have names of a family"):
        import_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8_e4m3fn"])
def test_quantised_weights_are_refused_in_one_sentence(tmp_path, dtype):
    quantised = {
        name: array.astype(jnp.dtype(dtype)) if array.ndim > 1 else array
        for name, array in PLAIN.items()
    }
    path = write_safetensors(tmp_path / "a.safetensors", quantised)
    with pytest.raises(ValueError) as refusal:
        import_checkpoint(path, tmp_path / "out")
    message = str(refusal.value)
    assert "holds quantised weights" in message and "float32, float16" in message
    assert "\n" not in message and not (tmp_path / "out").exists()


@pytest.fixture
def index(tmp_path):
    """Return the index of a checkpoint in two files."""
    folder = tmp_path / "parts"
    folder.mkdir()
    names = list(PLAIN)
    parts = {"model-00001-of-00002": names[:20], "model-00002-of-00002": names[20:]}
    for part, held in parts.items():
        write_safetensors(folder / f"{part}.safetensors", {name: PLAIN[name] for name in held})
    places = {name: f"{part}.safetensors" for part, held in parts.items() for name in held}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def test_a_checkpoint_in_parts_is_read_through_its_index(tmp_path, index):
    facts = import_checkpoint(index, tmp_path / "out", report=lambda line: None)
    arrays = read_model_folder(tmp_path / "out")[1]
    np.testing.assert_array_equal(arrays["classifier/bias"], PLAIN["head.bias"])
    assert len(facts.source["parts_sha256"]) == 2


def test_missing_parts_are_named(tmp_path, index):
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="not beside it: model-00002-of-00002.safetensors"):
        import_checkpoint(index, tmp_path / "out")


def test_one_part_alone_points_to_the_index(index):
    part = index.parent / "model-00001-of-00002.safetensors"
    with pytest.raises(ValueError, match=r"is part 1 of 2.*model\.safetensors\.index\.json"):
        open_checkpoint(part)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, 'no "weight_map"'),
        ({"weight_map": {"a": 1}}, 'no "weight_map"'),
        ({"weight_map": {"a": "../model.safetensors"}}, "leaves the model folder"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "1 arrays are not there"),
    ],
)
def test_a_damaged_index_is_refused(index, record, message):
    index.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        open_checkpoint(index)
