"""The padded form of an FFN's front is the 3x3 of the expanded map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops import depthwise_conv, expand, pointwise_conv
from lska_jax.ops.expand import expand_and_convolve

PADDED_AHEAD, TOO_SMALL = (2, 24, 28, 3), (2, 14, 14, 3)


def drawn(shape):
    rng = np.random.default_rng(0)
    sizes = (shape, (3, 5), (5,), (3, 3, 1, 5), (5,))
    images, *arrays = (jnp.asarray(rng.standard_normal(size), jnp.float32) for size in sizes)
    return images, tuple(arrays[:2]), tuple(arrays[2:])


def by_definition(images, wide, filters):
    maps = pointwise_conv(images, wide[0]) + wide[1][None, None, None]
    maps = depthwise_conv(maps, filters[0], implementation="xla")
    return maps + filters[1][None, None, None]


def is_padded_ahead(*arrays, **options):
    # The images with a channel of ones.
    run = str(jax.make_jaxpr(lambda *arrays: expand_and_convolve(*arrays, **options))(*arrays))
    return f"f32[2,{arrays[0].shape[1]},{arrays[0].shape[2]},4]" in run


@pytest.mark.parametrize("shape", [PADDED_AHEAD, TOO_SMALL])
def test_value_is_that_of_the_3x3_of_the_expanded_map(shape):
    arrays = drawn(shape)
    assert is_padded_ahead(*arrays) == (shape == PADDED_AHEAD)
    # Float32 roundings of 6e-8 each in sums of up to 36 products.
    np.testing.assert_allclose(
        jax.jit(expand_and_convolve)(*arrays), by_definition(*arrays), rtol=1e-5, atol=1e-5
    )


def test_gradients_are_those_of_one_after_the_other():
    arrays = drawn(PADDED_AHEAD)

    def gradients(function):
        return jax.jit(
            jax.grad(lambda *arrays: jnp.sum(jnp.square(function(*arrays))), argnums=(0, 1, 2))
        )

    assert ",4]" not in str(jax.make_jaxpr(gradients(expand_and_convolve))(*arrays))
    found, wanted = (gradients(f)(*arrays) for f in (expand_and_convolve, by_definition))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # Of sums over 1344 pixels.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


def test_another_platform_or_formulation_leaves_the_map_as_it_is(monkeypatch):
    arrays = drawn(PADDED_AHEAD)
    assert is_padded_ahead(*arrays, implementation="shift")
    assert not is_padded_ahead(*arrays, implementation="xla")
    monkeypatch.setattr(expand, "target_platform", lambda: "tpu")
    assert not is_padded_ahead(*arrays)
