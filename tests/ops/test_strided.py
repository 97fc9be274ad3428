"""Strided convolutions in the forms that are faster on CPU, against lax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lska_jax.ops import strided
from lska_jax.ops.strided import strided_conv


def lax_conv(images, kernel, stride, padding):
    return lax.conv_general_dilated(
        images,
        kernel.astype(images.dtype),
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def drawn(shape, size, channels=2):
    rng = np.random.default_rng(0)
    images, kernel = (rng.standard_normal(s) for s in (shape, (size, size, shape[-1], channels)))
    return jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32)


def has_product(images, kernel, stride):
    def convolve(images, kernel):
        return strided_conv(images, kernel, stride=stride, padding=kernel.shape[0] // 2)

    return "dot_general" in str(jax.make_jaxpr(convolve)(images, kernel))


def is_multiplied_for_kernel(images, kernel, stride):
    def gradient(images, kernel):
        def convolve(kernel):
            return strided_conv(images, kernel, stride=stride, padding=1)

        out, pull_back = jax.vjp(convolve, kernel)
        return pull_back(out)

    products = str(jax.make_jaxpr(gradient)(images, kernel)).count("dot_general")
    return products == (1 if stride == 1 else kernel.shape[0])


def channels_read(images, kernel, stride=2):
    """Return how many channels the convolution in the trace is given."""
    traced = jax.make_jaxpr(lambda *arrays: strided_conv(*arrays, stride=stride, padding=3))
    equation = traced(images, kernel).eqns[-1]
    while "call_jaxpr" in equation.params:
        equation = equation.params["call_jaxpr"].eqns[-1]
    assert equation.primitive.name == "conv_general_dilated"
    return equation.invars[0].aval.shape[-1]


# Sides that stride and kernel divide, and others; heights and widths that differ.
@pytest.mark.parametrize(
    ("height", "width", "padding"),
    [
        (13, 18, 3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((16, 16, 3), (7, 5, 3), (16, 16, 0), (13, 18, 0), (7, 7, 0))
        ),
    ],
)
def test_a_stem_equals_the_convolution_with_its_gradients(height, width, padding):
    images, kernel = drawn((2, height, width, 3), 7, channels=17)
    assert channels_read(images, kernel) == 4

    def ours(images, kernel):
        return strided_conv(images, kernel, stride=4, padding=padding)

    expected, pull_back = jax.vjp(lambda *arrays: lax_conv(*arrays, 4, padding), images, kernel)
    found, pull_ours_back = jax.vjp(ours, images, kernel)
    # Sums of 147 products in another order, float32 roundings of 6e-8 each.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    for one, other in zip(pull_ours_back(expected), pull_back(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)


# Sides that the stride divides and others, as dense heads and patch embeddings have them.
@pytest.mark.parametrize(
    ("stride", "height", "width", "size", "padding"),
    [
        *((1, 5, 8, 3, 1), (1, 6, 7, 3, 0), (1, 4, 4, 3, 3), (1, 6, 5, 5, 2), (1, 5, 6, 4, 1)),
        *((2, 9, 6, 3, 1), pytest.param(3, 11, 7, 3, 0, marks=pytest.mark.slow)),
    ],
)
def test_gradients_of_kernels_as_products_are_those_of_lax(
    stride, height, width, size, padding, monkeypatch
):
    monkeypatch.setattr(strided, "has_wide_vectors", lambda: False)
    images, kernel = drawn((2, height, width, 16), size, channels=5)
    assert is_multiplied_for_kernel(images, kernel, stride)

    def ours(images, kernel):
        return strided_conv(images, kernel, stride=stride, padding=padding)

    def theirs(images, kernel):
        return lax_conv(images, kernel, stride, padding)

    expected, pull_back = jax.vjp(theirs, images, kernel)
    found, pull_ours_back = jax.vjp(ours, images, kernel)
    # Sums of up to 400 products, or of 80 pixels, in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    for one, other in zip(pull_ours_back(expected), pull_back(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("is_multiplying", [True, False])
def test_bfloat16_maps_are_multiplied_where_the_processor_can(is_multiplying, monkeypatch):
    monkeypatch.setattr(strided, "multiplies_bfloat16", lambda: is_multiplying)
    images, kernel = drawn((1, 5, 6, 64), 3)
    images = images.astype(jnp.bfloat16)
    assert has_product(images, kernel, 2) == is_multiplying
    rounded = kernel.astype(jnp.bfloat16).astype(jnp.float32)
    exact = lax_conv(images.astype(jnp.float32), rounded, 2, 1)
    found = strided_conv(images, kernel, stride=2, padding=1).astype(jnp.bfloat16)
    # One rounding to 8 bits.
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, rtol=2**-8, atol=1e-4)


def test_a_patch_embedding_of_many_channels_is_a_product():
    images, kernel = drawn((2, 7, 6, 64), 3)
    assert has_product(images, kernel, 2)
    found = strided_conv(images, kernel, stride=2, padding=1)
    # Sums of 576 products in another order.
    np.testing.assert_allclose(found, lax_conv(images, kernel, 2, 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_other_platforms_convolve(platform, monkeypatch):
    monkeypatch.setattr(strided, "target_platform", lambda: platform)
    assert channels_read(*drawn((1, 16, 16, 3), 7, channels=32)) == 3


def test_what_another_form_gains_nothing_for_is_left_to_lax(monkeypatch):
    monkeypatch.setattr(strided, "has_wide_vectors", lambda: True)
    assert channels_read(*drawn((1, 8, 8, 3), 3, channels=16)) == 3
    assert channels_read(*drawn((1, 8, 8, 3), 3, channels=33)) == 3
    assert channels_read(*drawn((1, 8, 8, 4), 3, channels=32)) == 4
    assert not has_product(*drawn((1, 8, 8, 63), 3), 2)
    assert is_multiplied_for_kernel(*drawn((1, 8, 8, 16), 3), 1)
    assert not is_multiplied_for_kernel(*drawn((1, 8, 8, 15), 3), 1)
    assert not is_multiplied_for_kernel(*drawn((1, 8, 8, 16), 3), 2)
