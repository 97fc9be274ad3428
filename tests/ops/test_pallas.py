"""The fused chain of depth-wise convolutions, in interpret mode, against one lax call a step."""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lska_jax.ops.pallas import fits
from lska_jax.ops.pallas.chain import depthwise_chain

Sizes = tuple[tuple[int, int], ...]
LSKA: Sizes = ((1, 5), (5, 1), (1, 7), (7, 1))
LSKA_DILATIONS = (1, 1, 3, 3)


class Case(NamedTuple):
    """Images (B, H, W, C) and the kernels and dilations of a chain."""

    images: tuple[int, int, int, int]
    kernels: Sizes
    dilations: tuple[int, ...]


CASES = {
    "cascade on odd sizes": Case((2, 7, 5, 3), ((1, 3), (3, 1), (1, 3), (3, 1)), (1, 1, 2, 2)),
    "cascade larger than the map": Case((2, 3, 4, 2), LSKA, LSKA_DILATIONS),
    "cascade of one image and more channels than lanes": Case(
        (1, 3, 2, 130), ((1, 3), (3, 1)), (1, 2)
    ),
    "cascade of more images than a block": Case(
        (11, 3, 33, 2), ((1, 3), (3, 1), (1, 3), (3, 1)), (1, 1, 2, 2)
    ),
    "two steps": Case((3, 5, 7, 4), ((1, 5), (5, 1)), (1, 1)),
    "one square kernel": Case((9, 6, 5, 5), ((3, 3),), (1,)),
    "one square kernel, images beyond a block": Case((10, 2, 40, 3), ((3, 3),), (1,)),
    "LKA": Case((2, 5, 4, 3), ((3, 3), (3, 3)), (1, 2)),
    "one pixel": Case((2, 1, 1, 3), ((5, 5), (1, 7)), (1, 3)),
}
# Sums of up to 50 products in another order and up to four steps of them, as a share of the
# largest value: some float32 roundings of 6e-8 each, growing from step to step.
FLOAT32 = 2e-6
# The same for sums over all positions of a batch, up to 1,100 products.
FLOAT32_REDUCED = 1e-5
# The paper's maps for VAN-LSKA-base at 224 pixels.
STAGES = [(64, 56, 56, 64), (64, 28, 28, 128), (64, 14, 14, 320), (64, 7, 7, 512)]

# What they show is in the others: LKA is two squares, a cascade beyond a block has odd sizes and
# four steps, of which two are dilated.
_SLOW = (
    *("one square kernel", "one square kernel, images beyond a block", "cascade on odd sizes"),
    *("two steps", "cascade larger than the map"),
)
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=pytest.mark.slow if name in _SLOW else ())
        for name, case in CASES.items()
    ],
)


@functools.cache
def draw(case: Case):
    """Return images, kernels, biases and a cotangent of the output, in float32."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape).astype(np.float32))

    channels = case.images[-1]
    kernels = tuple(normal(*size, 1, channels) for size in case.kernels)
    biases = tuple(normal(channels) for _ in case.kernels)
    return normal(*case.images), kernels, biases, normal(*case.images)


def lax_chain(images, kernels, biases, *, dilations):
    for kernel, bias, dilation in zip(kernels, biases, dilations, strict=True):
        images = bias[None, None, None] + lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]],
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=images.shape[-1],
            precision=lax.Precision.HIGHEST,
        )
    return images


# Interpreted by name: where the platform decides, the kernel for a TPU is traced as well.
interpreted_chain = functools.partial(depthwise_chain, interpret=True)


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradients(chain, dilations, images, kernels, biases, cotangent):
    out, pullback = jax.vjp(functools.partial(chain, dilations=dilations), images, kernels, biases)
    return out, *pullback(cotangent)


@functools.cache
def computed(case: Case):
    return value_and_gradients(interpreted_chain, case.dilations, *draw(case))


@functools.cache
def reference(case: Case):
    return value_and_gradients(lax_chain, case.dilations, *draw(case))


def assert_close(actual, expected, tolerance: float) -> None:
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


@every_case
def test_the_output_equals_one_convolution_after_the_other(case):
    assert_close(computed(case)[0], reference(case)[0], FLOAT32)


@every_case
def test_the_gradient_of_the_images_equals_autodiff_of_lax(case):
    assert_close(computed(case)[1], reference(case)[1], FLOAT32)


@every_case
def test_the_gradients_of_kernels_and_biases_equal_autodiff_of_lax(case):
    assert_close(computed(case)[2:], reference(case)[2:], FLOAT32_REDUCED)


@pytest.mark.slow
def test_bfloat16_is_rounded_once_at_the_end_of_the_chain():
    case = CASES["two steps"]
    images, kernels, biases, _ = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(case))
    chain = jax.jit(functools.partial(interpreted_chain, dilations=case.dilations))
    out = chain(images, kernels, biases)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (images, kernels, biases))
    expected = lax_chain(*exact, dilations=case.dilations)
    assert out.dtype == jnp.bfloat16
    # One rounding to 8 significant bits is off by up to 2**-9 of the value.
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_gradients_keep_the_dtype_of_what_they_belong_to():
    case = CASES["cascade of more images than a block"]
    images, kernels, biases, cotangent = draw(case)
    halves = images.astype(jnp.bfloat16), kernels, biases, cotangent.astype(jnp.bfloat16)
    out, *gradients = value_and_gradients(interpreted_chain, case.dilations, *halves)
    assert [x.dtype for x in jax.tree.leaves(gradients)] == [jnp.bfloat16] + [jnp.float32] * 8
    # Images, kernels and cotangent are rounded to 8 bits before four steps of sums.
    in_float32 = jax.tree.map(lambda x: x.astype(jnp.float32), gradients)
    assert_close(in_float32, reference(case)[1:], 2**-5)


def round_to_bfloat16(array: jax.Array) -> jax.Array:
    return array.astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.slow
def test_float32_kernels_are_rounded_to_the_dtype_of_the_images():
    case = CASES["two steps"]
    images, kernels, biases, _ = draw(case)
    chain = jax.jit(functools.partial(interpreted_chain, dilations=case.dilations))
    # Rounded before the call, but of the same dtype: one program.
    images, rounded = images.astype(jnp.bfloat16), jax.tree.map(round_to_bfloat16, kernels)
    assert np.any(rounded[0] != kernels[0])
    np.testing.assert_array_equal(chain(images, kernels, biases), chain(images, rounded, biases))


def test_no_biases_are_zero_biases():
    case = CASES["two steps"]
    images, kernels, biases, _ = draw(case)
    zeros = [jnp.zeros_like(bias) for bias in biases]
    out = jax.jit(functools.partial(interpreted_chain, dilations=case.dilations))(
        images, kernels, None
    )
    assert_close(out, lax_chain(images, kernels, zeros, dilations=case.dilations), FLOAT32)


def test_padding_hides_values_that_are_not_finite_from_other_rows():
    images = jnp.zeros((1, 4, 4, 1)).at[0, 3, 3, 0].set(jnp.inf)
    run = jax.jit(functools.partial(interpreted_chain, dilations=(1,)))
    out = run(images, [jnp.ones((3, 3, 1, 1))], None)
    expected = np.zeros((4, 4))
    expected[2:, 2:] = np.inf
    np.testing.assert_array_equal(out[0, :, :, 0], expected)


# Four devices, and on each one image less than a block.
SHARDED = Case((28, 3, 2, 4), ((1, 3), (3, 1)), (1, 2))


def sharded(mesh):
    images, kernels, biases, cotangent = draw(SHARDED)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    whole = NamedSharding(mesh, PartitionSpec())
    maps = (jax.device_put(images, split), jax.device_put(cotangent, split))
    return maps[0], jax.device_put(kernels, whole), jax.device_put(biases, whole), maps[1]


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.slow
def test_under_jit_with_a_mesh_each_device_runs_its_own_images(mesh):
    arguments = sharded(mesh)
    with jax.set_mesh(mesh):
        lowered = value_and_gradients.lower(depthwise_chain, SHARDED.dilations, *arguments)
    compiled = lowered.compile()
    results = compiled(*arguments)
    assert results[0].sharding.is_equivalent_to(arguments[0].sharding, 4)
    text = compiled.as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert_close(results, reference(SHARDED), 1e-5)


def test_under_shard_map_gradients_of_replicated_kernels_are_summed(mesh):
    arguments = sharded(mesh)
    split, whole = PartitionSpec(("data", "fsdp")), PartitionSpec()

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(split, whole, whole, split),
        out_specs=whole,
        # Pallas's interpreter does not follow which values vary; its TPU kernels do.
        check_vma=False,
    )
    def loss(images, kernels, biases, cotangent):
        out = depthwise_chain(images, kernels, biases, dilations=SHARDED.dilations)
        return lax.psum(jnp.vdot(out, cotangent), ("data", "fsdp"))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arguments)
    assert_close(gradients, reference(SHARDED)[1:], FLOAT32_REDUCED)


@pytest.mark.slow
def test_vmap_over_images_and_kernels_equals_a_loop():
    case = Case((2, 2, 4, 3), ((1, 3), (3, 1)), (1, 2))
    images, kernels, _, _ = draw(case)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), (images, kernels))

    def loss(images, kernels):
        return jnp.sum(interpreted_chain(images, kernels, None, dilations=case.dilations) ** 2)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    mapped = jax.jit(jax.vmap(run))(*many)
    looped = [run(*jax.tree.map(lambda x: x[i], many)) for i in range(3)]  # noqa: B023
    assert_close(mapped, jax.tree.map(lambda *x: jnp.stack(x), *looped), FLOAT32_REDUCED)


# The channels fill half a block of lanes in the first stage, several blocks in the last.
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [STAGES[0], *(pytest.param(s, marks=pytest.mark.slow) for s in STAGES[1:3]), STAGES[3]],
    ids=str,
)
def test_the_cascade_lowers_for_tpu_at_the_shapes_of_the_paper(shape):
    assert calls_in_tpu_program(shape, LSKA, LSKA_DILATIONS) == 2


def test_the_convolution_of_the_ffn_lowers_for_tpu():
    assert calls_in_tpu_program((64, 56, 56, 512), ((3, 3),), (1,)) == 2


def calls_in_tpu_program(shape, kernels: Sizes, dilations) -> int:
    """Return how many kernels the value and the gradients take; Mosaic lowers without a TPU."""
    images = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    weights = tuple(jax.ShapeDtypeStruct((*k, 1, shape[-1]), jnp.float32) for k in kernels)
    biases = tuple(jax.ShapeDtypeStruct(shape[-1:], jnp.float32) for _ in kernels)
    run = functools.partial(value_and_gradients, depthwise_chain, dilations)
    exported = jax.export.export(jax.jit(run), platforms=["tpu"])(images, weights, biases, images)
    return exported.mlir_module().count("tpu_custom_call")


def test_maps_of_the_paper_fit_and_whole_images_do_not():
    sizes = ((1, 5), (5, 1), (1, 7), (7, 1))
    assert all(fits(shape, jnp.bfloat16, kernel_sizes=sizes) for shape in STAGES)
    assert not fits((1, 224, 224, 64), jnp.bfloat16, kernel_sizes=sizes)


def test_a_map_that_does_not_fit_is_refused_with_its_size():
    images = jnp.zeros((1, 400, 400, 1))
    with pytest.raises(ValueError, match=r"\(1, 400, 400, 1\) float32.*need \d+ MiB"):
        depthwise_chain(images, [jnp.zeros((3, 3, 1, 1))], None, dilations=[1])


@pytest.mark.parametrize("shape", [(2, 3, 1, 3), (3, 4, 1, 3), (3, 3, 2, 3), (3, 3, 1, 4)])
def test_a_kernel_that_does_not_belong_to_the_images_is_refused(shape):
    images = jnp.zeros((1, 5, 5, 3))
    with pytest.raises(ValueError, match=r"kernels\[0\] must have .*got") as refusal:
        inspect.unwrap(depthwise_chain)(images, [jnp.zeros(shape)], None, dilations=[1])
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("size", [(11, 11), (25, 1)])
def test_a_kernel_with_too_many_taps_or_rows_is_refused(size):
    images, kernel = jnp.zeros((1, 5, 5, 3)), jnp.zeros((*size, 1, 3))
    assert not fits(images.shape, images.dtype, kernel_sizes=[size])
    assert fits(images.shape, images.dtype, kernel_sizes=[(23, 1), (1, 81), (9, 9)])
    with pytest.raises(ValueError, match=f"up to 81 taps in up to 23 rows.*{size[0]} x {size[1]}"):
        depthwise_chain(images, [kernel], None, dilations=[1])


def test_as_many_dilations_as_kernels_are_asked_for():
    images, kernel = jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 1, 3))
    with pytest.raises(ValueError, match="must have one entry for each step; got 1, none and 2"):
        depthwise_chain(images, [kernel], None, dilations=[1, 1])


def test_a_dilation_below_one_is_refused():
    images, kernel = jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 1, 3))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        depthwise_chain(images, [kernel], None, dilations=[0])


def test_integer_images_are_refused():
    images, kernel = jnp.zeros((1, 5, 5, 3), jnp.int32), jnp.zeros((3, 3, 1, 3))
    with pytest.raises(ValueError, match="float32 or bfloat16, got int32"):
        inspect.unwrap(depthwise_chain)(images, [kernel], None, dilations=[1])
