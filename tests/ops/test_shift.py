"""Sums of more slices than one loop takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lska_jax.ops import depthwise_conv
from lska_jax.ops.depthwise import choose_for

MAPS = (2, 7, 9, 3)
CONVOLVE = functools.partial(depthwise_conv, implementation=("shift", "shift", "toeplitz"))


@pytest.fixture(scope="module")
def arrays() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, a kernel whose 13 x 13 taps all reach into them, and a cotangent."""
    rng = np.random.default_rng(0)
    shapes = (MAPS, (13, 13, 1, 3), MAPS)
    images, kernel, cotangent = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)
    return images, kernel, cotangent


def pullback(convolve, images, kernel, cotangent):
    out, pull_back = jax.vjp(convolve, images, kernel)
    return out, *pull_back(cotangent)


@pytest.fixture(scope="module")
def expected(arrays):
    xla = functools.partial(depthwise_conv, implementation="xla")
    return jax.jit(functools.partial(pullback, xla))(*arrays)


def assert_close(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        # Float32 roundings of sums of 63 to 169 products in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_is_summed_in_pieces_is_the_convolution_and_its_gradients(arrays, expected):
    assert_close(jax.jit(functools.partial(pullback, CONVOLVE))(*arrays), expected)


@pytest.mark.slow
def test_pieces_are_summed_under_shard_map(arrays, expected):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()
    run = jax.shard_map(
        functools.partial(pullback, CONVOLVE),
        mesh=mesh,
        in_specs=(split, whole, split),
        out_specs=(split, split, whole),
    )
    assert_close(jax.jit(run)(*arrays), expected)


def test_pieces_are_one_loop_of_the_program():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (MAPS, (13, 13, 1, 3))]
    program = jax.jit(CONVOLVE).lower(*shapes).as_text()
    assert program.count("stablehlo.while") == program.count("stablehlo.case") == 1


@pytest.mark.parametrize("maps", [(8, 28, 28, 80), (8, 14, 14, 160), (8, 7, 7, 320)])
def test_13_x_13_is_summed_in_pieces_and_has_a_gradient_of_banded_matrices(maps):
    chosen = choose_for(maps, (13, 13, 1, maps[-1]), 1, "float32")
    assert chosen == ("shift", "shift", "toeplitz")
