"""Loading PyTorch state_dicts with the reference's names."""

import functools
import re

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import CLASSES, small_model

from lska_jax import VAN, create_model, fold_batch_norm
from lska_jax.nn.functional import batch_stats, parameters
from lska_jax.weights import load_state_dict, make_state_dict
from lska_jax.weights.names.van import NAMES


def arrays(model: VAN) -> dict[str, np.ndarray]:
    return jax.tree.map(np.array, {**parameters(model), **batch_stats(model)})


def torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the PyTorch shape of one of our arrays, written out by hand."""
    if len(shape) == 4:
        height, width, depth, out = shape
        return (out, depth, height, width)
    if len(shape) == 2:
        return shape[::-1] if path.startswith("classifier") else (*shape[::-1], 1, 1)
    return shape


@functools.cache
def golden_arrays(attention: str) -> dict[str, np.ndarray]:
    named = {}
    for path, array in arrays(small_model(attention)).items():
        name, _ = NAMES.name_of(path, variant=attention)
        named[name] = golden_weights.weight(name, torch_shape(path, array.shape))
    return named


def golden_state_dict(attention: str = "lska") -> dict[str, np.ndarray]:
    """Return a state_dict of the test's own, by the reference's names."""
    return {name: array.copy() for name, array in golden_arrays(attention).items()}


@pytest.fixture
def model() -> VAN:
    return small_model()


@pytest.fixture
def state_dict() -> dict[str, np.ndarray]:
    return golden_state_dict()


def refusal(model: VAN, state_dict: dict[str, np.ndarray]) -> str:
    """Return the message of a refused load, having seen that the model did not change."""
    before = arrays(model)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        load_state_dict(model, state_dict)
    after = arrays(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    return str(caught.value)


@pytest.mark.parametrize("attention", ["lska", "lka", "lska_trivial", "lka_trivial"])
def test_every_array_of_every_attention_has_a_name_of_its_own(attention):
    model = small_model(attention)
    names = [NAMES.name_of(path, variant=attention)[0] for path in arrays(model)]
    assert len(set(names)) == len(names)


def test_depthwise_kernels_keep_their_orientation(model, state_dict):
    name = "block1.0.attn.spatial_gating_unit.conv_spatial_h.weight"
    given = state_dict[name]
    load_state_dict(model, state_dict)
    loaded = model.stages[0].blocks[0].attention.gate.depthwise[2].kernel[...]
    assert given.shape == (4, 1, 1, 7) and loaded.shape == (1, 7, 1, 4)
    np.testing.assert_array_equal(loaded[0, :, 0, :], given[:, 0, 0, :].T)


def test_square_kernels_are_not_transposed(model, state_dict):
    load_state_dict(model, state_dict)
    given = state_dict["patch_embed1.proj.weight"]
    loaded = np.asarray(model.stages[0].patch_embedding.projection.kernel[...])
    assert all(
        loaded[y, x, i, o] == given[o, i, y, x]
        for y, x, i, o in [(0, 6, 1, 2), (6, 0, 1, 2), (3, 4, 0, 3)]
    )
    given = state_dict["block2.1.mlp.dwconv.dwconv.weight"]
    loaded = np.asarray(model.stages[1].blocks[1].ffn.depthwise.kernel[...])
    np.testing.assert_array_equal(loaded[:, :, 0, 5], given[5, 0])


def test_1x1_convolutions_and_the_head_become_matrices_from_inputs_to_outputs(model, state_dict):
    load_state_dict(model, state_dict)
    block = model.stages[1].blocks[0]
    np.testing.assert_array_equal(
        block.ffn.expand.kernel[...], state_dict["block2.0.mlp.fc1.weight"][:, :, 0, 0].T
    )
    np.testing.assert_array_equal(model.classifier.kernel[...], state_dict["head.weight"].T)


def test_statistics_and_layer_scales_are_loaded(model, state_dict):
    load_state_dict(model, state_dict)
    block = model.stages[0].blocks[0]
    for variable, name in [
        (block.norm_1.mean, "norm1.running_mean"),
        (block.norm_2.var, "norm2.running_var"),
        (block.norm_1.scale, "norm1.weight"),
        (block.scale_2.scale, "layer_scale_2"),
    ]:
        np.testing.assert_array_equal(variable[...], state_dict[f"block1.0.{name}"])


def test_batch_counters_are_ignored(model, state_dict):
    state_dict["patch_embed1.norm.num_batches_tracked"] = np.array(7)
    load_state_dict(model, state_dict)
    np.testing.assert_array_equal(model.classifier.bias[...], state_dict["head.bias"])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16])
def test_other_floating_dtypes_are_loaded_as_float32(model, state_dict, dtype):
    given = {name: array.astype(dtype) for name, array in state_dict.items()}
    load_state_dict(model, given)
    loaded = model.classifier.bias[...]
    assert loaded.dtype == jnp.float32
    np.testing.assert_array_equal(loaded, given["head.bias"].astype(np.float32))


def test_jax_arrays_are_taken_as_well(model, state_dict):
    load_state_dict(model, {name: jnp.asarray(array) for name, array in state_dict.items()})
    np.testing.assert_array_equal(model.classifier.bias[...], state_dict["head.bias"])


def test_a_model_without_a_head_takes_a_state_dict_without_one(state_dict):
    headless = small_model(num_classes=0)
    without = {name: a for name, a in state_dict.items() if not name.startswith("head.")}
    load_state_dict(headless, without)
    np.testing.assert_array_equal(headless.stages[1].norm.bias[...], state_dict["norm2.bias"])


def test_every_missing_name_is_listed(model, state_dict):
    gone = ["head.bias", "block1.0.norm1.running_var", "patch_embed2.proj.weight"]
    message = refusal(model, {n: a for n, a in state_dict.items() if n not in gone})
    assert "missing (3):" in message
    assert all(name in message for name in gone)


def test_every_unexpected_name_is_listed(model, state_dict):
    extra = {"block9.0.layer_scale_1": np.zeros(4), "module.head.bias": np.zeros(CLASSES)}
    message = refusal(model, {**state_dict, **extra})
    assert "unexpected (2):" in message
    assert all(name in message for name in extra)


def test_every_misshapen_name_is_listed_with_both_shapes(model, state_dict):
    state_dict["head.bias"] = np.zeros(1000, np.float32)
    state_dict["block1.0.layer_scale_1"] = np.zeros((4, 1, 1), np.float32)
    message = refusal(model, state_dict)
    assert "wrong shape or dtype (2):" in message
    assert re.search(r"head\.bias: \(1000,\), .*\(6,\)", message)
    assert re.search(r"layer_scale_1: \(4, 1, 1\), .*\(4,\)", message)


def test_a_horizontal_kernel_in_place_of_a_vertical_one_is_misshapen(model, state_dict):
    gate = "block1.0.attn.spatial_gating_unit"
    horizontal, vertical = f"{gate}.conv0h.weight", f"{gate}.conv0v.weight"
    state_dict[horizontal], state_dict[vertical] = state_dict[vertical], state_dict[horizontal]
    message = refusal(model, state_dict)
    assert f"{horizontal}: (4, 1, 5, 1)" in message
    assert f"{vertical}: (4, 1, 1, 5)" in message


def test_kernels_in_our_own_layout_are_misshapen(model, state_dict):
    name = "patch_embed1.proj.weight"
    state_dict[name] = state_dict[name].transpose(2, 3, 1, 0)
    assert f"{name}: (7, 7, 3, 4)" in refusal(model, state_dict)


def test_a_1x1_kernel_given_as_a_matrix_is_misshapen(model, state_dict):
    name = "block1.0.attn.proj_1.weight"
    state_dict[name] = state_dict[name][:, :, 0, 0]
    assert f"{name}: (4, 4)" in refusal(model, state_dict)


def test_arrays_that_are_not_floating_point_are_listed(model, state_dict):
    state_dict["head.bias"] = np.zeros(CLASSES, np.int64)
    assert "head.bias: dtype int64, expected floating point" in refusal(model, state_dict)


def test_all_kinds_of_problems_are_listed_at_once(model, state_dict):
    state_dict["block1.0.mlp.fc3.bias"] = state_dict.pop("block1.0.mlp.fc2.bias")
    state_dict["head.weight"] = np.zeros((7, 6), np.float32)
    message = refusal(model, state_dict)
    assert "block1.0.mlp.fc2.bias" in message
    assert "block1.0.mlp.fc3.bias" in message
    assert "head.weight: (7, 6)" in message


def test_a_state_dict_of_another_attention_is_refused(model):
    message = refusal(model, golden_state_dict("lka"))
    assert "conv0h.weight" in message and "conv0.weight" in message


def test_a_path_that_no_van_has_is_an_error():
    with pytest.raises(ValueError, match="'stages/0/pool/kernel' is not a path"):
        NAMES.name_of("stages/0/pool/kernel", variant="lska")


@pytest.mark.parametrize("attention", ["lska", "lka", "lska_trivial", "lka_trivial"])
def test_a_state_dict_that_was_made_is_loaded_bit_for_bit(attention):
    model, other = small_model(attention), small_model(attention, rngs=nnx.Rngs(1))
    state_dict = make_state_dict(model)
    assert all(array.flags.c_contiguous for array in state_dict.values())
    load_state_dict(other, state_dict)
    after, before = arrays(other), arrays(model)
    assert all(np.array_equal(after[path], before[path]) for path in before)


def test_values_that_are_not_finite_are_listed(model, state_dict):
    state_dict["head.bias"][0] = np.nan
    assert "head.bias: 1 of 6 values are not finite" in refusal(model, state_dict)


def test_loading_changes_nothing_but_the_values(model, state_dict):
    before = nnx.split(model)
    load_state_dict(model, state_dict)
    graph, state = nnx.split(model)
    assert graph == before[0]
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(before[1]), strict=True)
    assert all(new.shape == old.shape and new.dtype == old.dtype for new, old in pairs)


@pytest.mark.parametrize(
    ("name", "fields"), [("convnext_tiny", {}), ("van_lska_tiny", {"ffn_ratios": (2,)})]
)
def test_a_folded_network_has_no_state_dict(name, fields):
    model = create_model(name, dims=(4,), depths=(1,), num_classes=2, **fields)
    whole, folded = make_state_dict(model), fold_batch_norm(model)
    for call in (lambda: make_state_dict(folded), lambda: load_state_dict(folded, whole)):
        with pytest.raises(ValueError, match="take the network that it was folded from"):
            call()
