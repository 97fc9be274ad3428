"""The four attentions against compositions written with lax, and their receptive field."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from lska_jax import LKA, LSKA, LKATrivial, LSKATrivial
from lska_jax.nn.functional import flat_arrays

CHANNELS = 5
# Attention, k, and its depth-wise steps as (kernel height, kernel width, dilation).
COMPOSITIONS = [
    (LKA, 7, [(3, 3, 1), (3, 3, 2)]),
    (LKA, 23, [(5, 5, 1), (7, 7, 3)]),
    (LSKA, 11, [(1, 3, 1), (3, 1, 1), (1, 5, 2), (5, 1, 2)]),
    (LSKA, 23, [(1, 5, 1), (5, 1, 1), (1, 7, 3), (7, 1, 3)]),
    (LSKA, 65, [(1, 5, 1), (5, 1, 1), (1, 21, 3), (21, 1, 3)]),
    (LKATrivial, 9, [(9, 9, 1)]),
    (LSKATrivial, 21, [(1, 21, 1), (21, 1, 1)]),
]
names = [f"{attention.__name__} k={k}" for attention, k, _ in COMPOSITIONS]


def with_random_parameters(module: nnx.Module) -> nnx.Module:
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32),
        nnx.state(module, nnx.Param),
    )
    nnx.update(module, state)
    return module


def convolve(x: jax.Array, kernel: jax.Array, dilation: int, groups: int) -> jax.Array:
    padding = [(dilation * (size - 1) // 2,) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(("attention", "k", "steps"), COMPOSITIONS, ids=names)
def test_the_attention_equals_its_composition_from_lax_convolutions(attention, k, steps):
    module = with_random_parameters(attention(CHANNELS, k, rngs=nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 9, 13, CHANNELS)), jnp.float32)
    arrays = flat_arrays(nnx.state(module, nnx.Param))

    gate = x
    for i, (height, width, dilation) in enumerate(steps):
        kernel = arrays.pop(f"depthwise/{i}/kernel")
        assert kernel.shape == (height, width, 1, CHANNELS)
        gate = np.add(convolve(gate, kernel, dilation, CHANNELS), arrays.pop(f"depthwise/{i}/bias"))
    pointwise = arrays.pop("pointwise/kernel").reshape(1, 1, CHANNELS, CHANNELS)
    gate = np.add(convolve(gate, pointwise, 1, 1), arrays.pop("pointwise/bias"))

    assert not arrays
    out = jax.jit(lambda x: module(x))(x)
    # Sums of up to 81 products after each other, of values of size 1.
    np.testing.assert_allclose(out, x * gate, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "k"),
    # One k for each default dilation, and the largest; the sizes of all are in test_kernel_spec.py.
    [(LSKA, k) for k in (7, 23, 65)]
    + [pytest.param(LSKA, k, marks=pytest.mark.slow) for k in (11, 35, 41, 53)]
    + [(attention, k) for attention in (LKA, LKATrivial, LSKATrivial) for k in (7, 23)],
)
def test_the_gate_sees_exactly_k_by_k_pixels(attention, k):
    module = attention(1, k, implementation="xla", rngs=nnx.Rngs(0))
    ones = jax.tree.map(jnp.ones_like, nnx.state(module, nnx.Param))
    nnx.update(module, ones)
    side = k + 4
    background = np.ones((1, side, side, 1), np.float32)
    impulse = background.copy()
    impulse[0, side // 2, side // 2] += 1
    # Away from the impulse both inputs are 1, so that the outputs differ by the gate's response;
    # all are sums of ones below 2**24: exact in float32.
    run = jax.jit(lambda x: module(x))
    outputs = [np.asarray(run(x)) for x in (impulse, background)]
    response = (outputs[0] - outputs[1])[0, :, :, 0]
    reached = np.zeros((side, side), bool)
    reached[2:-2, 2:-2] = True
    np.testing.assert_array_equal(response != 0, reached)


@pytest.mark.parametrize("attention", [LKA, LSKA])
def test_an_explicit_dilation_changes_the_cascade(attention):
    module = attention(4, 23, dilation=2, rngs=nnx.Rngs(0))
    sizes = {size for step in module.depthwise for size in step.kernel.shape[:2]} - {1}
    assert sizes == {3, 11}


@pytest.mark.parametrize("attention", [LKA, LSKA])
def test_an_invalid_kernel_names_the_nearest_valid_ones(attention):
    with pytest.raises(ValueError, match="k=21 .*Nearest valid k: 17 or 23"):
        attention(4, 21, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("attention", [LKATrivial, LSKATrivial])
def test_an_even_trivial_kernel_names_the_nearest_valid_ones(attention):
    with pytest.raises(ValueError, match="k=22 .*Nearest valid: 21 or 23"):
        attention(4, 22, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("attention", [LKA, LSKA, LKATrivial, LSKATrivial])
def test_channels_first_images_are_named_as_such(attention):
    module = attention(4, 7, rngs=0)
    with pytest.raises(ValueError, match=r"\(B, H, W, 4\), got \(2, 4, 9, 9\)\. .*channels-first"):
        module(jnp.zeros((2, 4, 9, 9)))


def test_an_image_without_a_batch_and_other_channels_are_refused():
    module = LSKA(4, 7, rngs=0)
    with pytest.raises(ValueError, match=r"got \(9, 9, 4\)\. .*images\[None\]"):
        inspect.unwrap(LSKA.__call__)(module, jnp.zeros((9, 9, 4)))
    with pytest.raises(ValueError, match=r"\(B, H, W, 4\), got \(2, 9, 9, 5\)\.$"):
        module(jnp.zeros((2, 9, 9, 5)))


def test_sizes_of_numpy_a_seed_and_an_array_of_numpy_are_taken():
    numpy_sizes = LSKA(np.int64(4), k=np.array([7, 11])[0], dilation=np.int64(2), rngs=0)
    plain = LSKA(4, k=7, dilation=2, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).standard_normal((1, 5, 6, 4))
    np.testing.assert_array_equal(numpy_sizes(images), plain(jnp.asarray(images, jnp.float32)))


@pytest.mark.parametrize("attention", [LKA, LSKA, LKATrivial, LSKATrivial])
def test_bfloat16_computes_in_bfloat16_with_float32_parameters(attention):
    module = attention(4, 7, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 5, 5, 4), jnp.bfloat16)
    assert jax.eval_shape(lambda x: module(x), x).dtype == jnp.bfloat16
    parameters = jax.tree.leaves(nnx.state(module, nnx.Param))
    assert {leaf.dtype for leaf in parameters} == {jnp.dtype("float32")}
