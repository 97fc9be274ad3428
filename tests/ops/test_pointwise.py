"""1x1 convolution against a 1x1 lax convolution."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lska_jax.ops import pointwise
from lska_jax.ops.pointwise import pointwise_conv


def lax_conv(images, kernel):
    return lax.conv_general_dilated(
        images,
        kernel[None, None].astype(images.dtype),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    shapes = ((3, 5, 2, 7), (7, 4), (3, 5, 2, 4))
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


@jax.jit
def ours(images, kernel, cotangent):
    out, pullback = jax.vjp(pointwise_conv, images, kernel)
    return out, *pullback(cotangent)


@jax.jit
def reference(images, kernel, cotangent):
    out, pullback = jax.vjp(lax_conv, images, kernel)
    return out, *pullback(cotangent)


def test_value_and_gradients_equal_those_of_a_convolution(drawn):
    for actual, expected in zip(ours(*drawn), reference(*drawn), strict=True):
        # Sums of up to 30 products in another order, a few float32 roundings of 6e-8 each.
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


def test_bfloat16_images_keep_a_float32_gradient_of_the_kernel(drawn):
    images, kernel, cotangent = drawn
    halves = images.astype(jnp.bfloat16), kernel, cotangent.astype(jnp.bfloat16)
    out, of_images, of_kernel = ours(*halves)
    assert [x.dtype for x in (out, of_images, of_kernel)] == [jnp.bfloat16] * 2 + [jnp.float32]
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (halves[0], halves[2]))
    expected = reference(exact[0], kernel, exact[1])[2]
    # Products of two 8-bit numbers are exact in float32, and so nearly are sums of 30.
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_multiplying", [True, False])
def test_products_of_bfloat16_on_cpu_are_rounded_once(is_multiplying, monkeypatch):
    monkeypatch.setattr(pointwise, "multiplies_bfloat16", lambda: is_multiplying)
    rng = np.random.default_rng(0)
    images, kernel = (
        jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in ((9, 200), (200, 24))
    )
    widened = (np.asarray(array, np.float64) for array in (images, kernel))
    exact = np.matmul(*widened)
    fresh = jax.jit(lambda *arrays: inspect.unwrap(pointwise_conv)(*arrays))
    wide = jax.jit(lambda *arrays: inspect.unwrap(pointwise_conv)(*arrays, dtype=jnp.float32))
    # Half a unit in the last of 8 bits; and sums of 200 products with 24.
    np.testing.assert_allclose(np.asarray(fresh(images, kernel), float), exact, rtol=2.01**-8)
    np.testing.assert_allclose(np.asarray(wide(images, kernel), float), exact, atol=2e-5)


def test_gradients_of_a_wider_result_are_those_of_bfloat16(drawn):
    images, kernel, cotangent = drawn
    halves = images.astype(jnp.bfloat16), kernel

    def pull_back(dtype):
        out, pull = jax.vjp(lambda *arrays: pointwise_conv(*arrays, dtype=dtype), *halves)
        return pull(cotangent.astype(jnp.bfloat16).astype(out.dtype))

    for wide, narrow in zip(pull_back(jnp.float32), pull_back(jnp.bfloat16), strict=True):
        assert wide.dtype == narrow.dtype
        np.testing.assert_array_equal(np.asarray(wide, float), np.asarray(narrow, float))


def test_gradients_of_a_batch_that_is_split_over_explicit_axes(drawn):
    images, kernel, cotangent = (jnp.tile(drawn[0], (2, 1, 1, 1)), drawn[1],
                                 jnp.tile(drawn[2], (2, 1, 1, 1)))  # fmt: skip
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        split = [jax.device_put(x, jax.P("data")) for x in (images, cotangent)]
        found = inspect.unwrap(ours)(split[0], kernel, split[1])
    for one, expected in zip(found, reference(images, kernel, cotangent), strict=True):
        # Sums of up to 60 products in another order, float32 roundings of 6e-8 each.
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize(
    ("images", "kernel", "message"),
    [
        (jnp.zeros((1, 2, 2, 7), jnp.int32), jnp.zeros((7, 4)), "images must be float32 or bf"),
        (jnp.zeros((7,)), jnp.zeros((7, 4)), r"images must have shape \(B, ..., in_channels\)"),
        (jnp.zeros((1, 2, 2, 7)), jnp.zeros((6, 4)), r"kernel must have shape \(7, 4\), got"),
        (
            jnp.zeros((1, 2, 2, 7)),
            jnp.zeros((7, 4), jnp.int32),
            "kernel must hold floating-point values",
        ),
    ],
)
def test_arrays_that_would_give_silent_nonsense_are_refused(images, kernel, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(pointwise_conv)(images, kernel)


@pytest.mark.parametrize(("platform", "is_reshaped"), [("cpu", True), ("tpu", False)])
def test_only_a_cpu_program_turns_maps_into_matrices(drawn, platform, is_reshaped, monkeypatch):
    monkeypatch.setattr(pointwise, "target_platform", lambda: platform)
    fresh = jax.jit(lambda *arrays: inspect.unwrap(ours)(*arrays))  # nothing traced before
    exported = jax.export.export(fresh, platforms=[platform])(*drawn)
    assert ("tensor<30x7xf32>" in exported.mlir_module()) == is_reshaped
