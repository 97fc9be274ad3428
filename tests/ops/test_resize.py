"""Resizes of maps: stored outputs of PyTorch, sizes along both ways, and axes filled in part."""

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.pooling import adaptive_mean
from lska_jax.ops.resize import axis_weights, repeat_nearest, resize_bilinear


def stored() -> dict[str, np.ndarray]:
    with np.load(golden_weights.GOLDEN / "dense" / "ops_fpn.npz") as file:
        return dict(file)


@pytest.mark.parametrize("size", [(10, 14), (9, 13), (17, 25), (3, 4)])
def test_bilinear_is_that_of_pytorch_whether_maps_grow_or_shrink(size):
    given = jnp.asarray(stored()["bilinear/input"])
    expected = stored()[f"bilinear/{size[0]}x{size[1]}"]
    np.testing.assert_allclose(resize_bilinear(given, size), expected, atol=2e-6)


def test_pools_are_those_of_pytorch():
    given = jnp.asarray(stored()["bilinear/input"])
    for side in (1, 2, 3, 6):
        expected = stored()[f"adaptive_pool/{side}"]
        np.testing.assert_allclose(adaptive_mean(given, side), expected, atol=1e-6)


def test_whole_factors_are_those_of_the_matrix():
    maps = jax.random.normal(jax.random.key(0), (1, 3, 5, 2))
    by_rows = jnp.einsum("oh,bhwc->bowc", axis_weights(12, 3), maps)
    by_matrices = jnp.einsum("ow,bhwc->bhoc", axis_weights(15, 5), by_rows)
    np.testing.assert_allclose(resize_bilinear(maps, (12, 15)), by_matrices, atol=1e-6)


# Factors with and without a phase in the middle; one pixel, which is both ends; all of the limit.
@pytest.mark.parametrize(("given", "size"), [((3, 5), (12, 15)), ((1, 2), (2, 16))])
def test_the_gradient_of_whole_factors_is_that_of_the_matrix(given, size):
    maps = jax.random.normal(jax.random.key(0), (2, *given, 2))
    taken = jax.random.normal(jax.random.key(1), (2, *size, 2))
    gradient = jax.grad(lambda maps: jnp.sum(taken * resize_bilinear(maps, size)))(maps)
    by_rows = jnp.einsum("oh,bowc->bhwc", axis_weights(size[0], given[0]), taken)
    by_matrices = jnp.einsum("ow,bhoc->bhwc", axis_weights(size[1], given[1]), by_rows)
    np.testing.assert_allclose(gradient, by_matrices, atol=1e-5)


def test_an_axis_filled_in_part_is_resized_as_if_it_were_alone():
    # Six of eight pixels are there, eleven of sixteen are wanted.
    part = axis_weights(16, 8, wanted=jnp.asarray(11), source=jnp.asarray(6))
    np.testing.assert_allclose(part[:11, :6], axis_weights(11, 6), atol=1e-6)
    assert not np.asarray(part[:11, 6:]).any()
    np.testing.assert_allclose(part.sum(1), 1.0, atol=1e-6)


def test_nearest_repeats_pixels_and_refuses_a_map_that_is_no_half():
    maps = jnp.arange(6.0).reshape(1, 2, 3, 1)
    rows = np.asarray(repeat_nearest(maps, (3, 5)))[0, :, :, 0]
    np.testing.assert_array_equal(rows, [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    with pytest.raises(ValueError, match="2 x 3 is not half of 3 x 8"):
        repeat_nearest(maps, (3, 8))


def test_nearest_takes_maps_whose_half_was_rounded_down():
    maps = jnp.arange(6.0).reshape(1, 2, 3, 1)
    rows = np.asarray(repeat_nearest(maps, (5, 7)))[0, :, :, 0]
    # torch.nn.functional.interpolate(maps, size=(5, 7), mode="nearest")
    expected = [[0, 0, 0, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 4, 4, 5, 5]] * 2
    np.testing.assert_array_equal(rows, expected)
