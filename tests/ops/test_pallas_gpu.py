"""The GPU kernel of one depth-wise convolution against lax, and lowered for CUDA and ROCm.

Interpreted on CPU. On a GPU it runs: JAX_PLATFORMS=cuda XLA_FLAGS= pytest -n 0 -k "not mesh" with
this file.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lska_jax.ops import depthwise, depthwise_conv, formulations, xla
from lska_jax.ops.formulations import Site, parse
from lska_jax.ops.pallas import gpu
from lska_jax.ops.pallas.gpu import depthwise_conv_on_gpu

# Images (B, H, W, C), kernel, dilation. Tiles are 32 pixels by 32 channels: 1 x 32 along a row,
# 32 x 1 down a column, else 4 x 8. A program of the taps' gradient sums up to nine taps.
CASES = {
    "odd sizes": ((2, 5, 7, 3), (1, 5), 1),
    "more columns and channels than a tile": ((1, 4, 40, 33), (1, 7), 3),
    "more rows than a tile": ((3, 41, 2, 4), (5, 1), 2),
    "more taps than a program sums": ((2, 9, 40, 3), (1, 11), 1),
    "square": ((2, 7, 6, 5), (3, 3), 1),
    "larger than the map": ((1, 4, 5, 8), (17, 1), 3),
    "larger than the map both ways": ((2, 3, 2, 2), (7, 7), 2),
    "one pixel": ((1, 1, 1, 1), (5, 5), 1),
}
# Sums of up to 140 products in another order, as a share of the largest value.
FLOAT32 = 2e-6

# What the first shows is in the others too, and a kernel larger than the map is in one pixel.
_SLOW = (
    *("odd sizes", "more rows than a tile"),
    *("larger than the map", "larger than the map both ways"),
)
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=pytest.mark.slow if name in _SLOW else ())
        for name, case in CASES.items()
    ],
)


def draw(case, dtype=jnp.float32):
    """Return images, kernel and a cotangent of the output."""
    shape, size, _ = case
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(rng.standard_normal(s), dtype) for s in (shape, (*size, 1, shape[-1]), shape)
    ]


@functools.cache
def interpreted(dilation: int):
    """Return the kernel as it runs here; on a CPU the one for a GPU need not be traced as well."""
    is_interpreted = True if jax.default_backend() == "cpu" else None
    return functools.partial(depthwise_conv_on_gpu, dilation=dilation, interpret=is_interpreted)


@functools.cache
def reference(dilation: int):
    return lambda images, kernel: xla.convolve(images, kernel, dilation)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(convolve, images, kernel, cotangent):
    out, pull_back = jax.vjp(convolve, images, kernel)
    return out, *pull_back(cotangent)


def assert_close(actual, expected, tolerance: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        scale = np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


@every_case
def test_output_and_gradients_equal_those_of_lax(case):
    ours = interpreted(case[2])
    expected = value_and_gradients(reference(case[2]), *draw(case))
    assert_close(value_and_gradients(ours, *draw(case)), expected, FLOAT32)


@pytest.mark.slow
def test_bfloat16_is_summed_in_float32_and_keeps_its_dtype():
    case = CASES["odd sizes"]
    ours = interpreted(1)
    halves = draw(case, jnp.bfloat16)
    exact = [array.astype(jnp.float32) for array in halves]
    expected = value_and_gradients(reference(1), *exact)
    expected = [array.astype(jnp.bfloat16) for array in expected]
    # One rounding to 8 significant bits on either side.
    assert_close(value_and_gradients(ours, *halves), expected, 2**-8)


def test_padding_hides_values_that_are_not_finite():
    images = jnp.zeros((1, 4, 4, 1)).at[0, 3, 3, 0].set(jnp.inf)
    out = jax.jit(interpreted(1))(images, jnp.ones((3, 3, 1, 1)))
    expected = np.zeros((4, 4))
    expected[2:, 2:] = np.inf
    np.testing.assert_array_equal(out[0, :, :, 0], expected)


@pytest.mark.slow
def test_it_can_be_mapped():
    images, kernel, _ = draw(CASES["odd sizes"])
    stacked = jnp.stack([images, 2.0 * images])
    out = jax.jit(jax.vmap(lambda x: depthwise_conv_on_gpu(x, kernel, dilation=1)))(stacked)
    expected = jnp.stack([xla.convolve(x, kernel, 1) for x in stacked])
    assert_close([out], [expected], FLOAT32)


@pytest.mark.slow
def test_under_a_mesh_each_device_convolves_its_own_images():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    case = ((4, 3, 4, 2), (1, 5), 1)
    images, kernel, cotangent = draw(case)
    split = NamedSharding(mesh, PartitionSpec("data"))
    arguments = (
        jax.device_put(images, split),
        jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())),
        jax.device_put(cotangent, split),
    )
    ours = functools.partial(depthwise_conv_on_gpu, dilation=1)
    with jax.set_mesh(mesh):
        compiled = value_and_gradients.lower(ours, *arguments).compile()
    assert "all-gather" not in compiled.as_text()
    expected = value_and_gradients(reference(1), images, kernel, cotangent)
    assert_close(compiled(*arguments), expected, FLOAT32)


# One case for each shape of a tile, with each platform and each dtype among them.
LOWERED = {
    ("more columns and channels than a tile", "cuda", "float32"),
    ("more rows than a tile", "rocm", "float32"),
    ("square", "cuda", "bfloat16"),
}


@pytest.mark.parametrize(
    ("name", "platform", "dtype"),
    [
        pytest.param(*each, marks=() if each in LOWERED else pytest.mark.slow)
        for each in itertools.product(CASES, ("cuda", "rocm"), ("float32", "bfloat16"))
    ],
)
def test_forward_and_backward_lower_for_gpus_as_three_kernels(name, platform, dtype):
    case = CASES[name]
    ours = functools.partial(depthwise_conv_on_gpu, dilation=case[2])
    traced = value_and_gradients.trace(ours, *draw(case, dtype))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("__gpu$xla.gpu.triton") == 3


def test_more_taps_than_the_kernel_takes_are_refused():
    with pytest.raises(ValueError, match="up to 169 taps in the GPU kernel"):
        depthwise_conv_on_gpu(jnp.ones((1, 2, 2, 1)), jnp.ones((15, 15, 1, 1)), dilation=1)


def test_by_name_it_is_what_a_gpu_runs(monkeypatch):
    images, kernel, _ = draw(CASES["square"])
    run = jax.jit(functools.partial(depthwise_conv, implementation="pallas"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = run.trace(images, kernel).lower(lowering_platforms=("cuda",)).as_text()
    assert "__gpu$xla.gpu.triton" in text


@pytest.mark.parametrize(("devices", "chosen"), [(1, "pallas"), (4, "xla")])
def test_auto_takes_it_where_the_table_says_so_and_it_can_be_placed(monkeypatch, devices, chosen):
    site = Site((1, 5), 1, (28, 28), 64)
    monkeypatch.setattr(formulations, "_table", lambda: {"gpu": [(site, parse("pallas"))]})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    choose = functools.partial(depthwise.choose_for, (8, 28, 28, 64), dilation=1, dtype=jnp.float32)
    assert choose(kernel_shape=(1, 5, 1, 64)) == parse(chosen)
    assert choose(kernel_shape=(1, gpu.MOST_TAPS + 2, 1, 64)) == parse("xla")
