"""Depth-wise convolution: every formulation against lax, brute force and finite differences."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lska_jax.ops import depthwise_conv, implementations
from lska_jax.ops.depthwise import formulation_module


class Case(NamedTuple):
    """Sizes of one convolution of a batch of 2 maps with 3 channels."""

    height: int
    width: int
    kernel: tuple[int, int]
    dilation: int


CASES = {
    "horizontal": Case(6, 9, (1, 5), 1),
    "vertical": Case(9, 6, (5, 1), 1),
    "horizontal dilated": Case(5, 21, (1, 7), 3),
    "vertical dilated": Case(21, 5, (7, 1), 3),
    "square": Case(7, 8, (3, 3), 1),
    "square dilated": Case(11, 9, (5, 5), 2),
    "oblong": Case(7, 8, (3, 5), 1),
    "rows in blocks of eight": Case(16, 5, (3, 3), 1),
    "rows in blocks of seven": Case(14, 5, (5, 1), 2),
    "rows beyond the last block": Case(17, 4, (3, 1), 1),
    "more taps than one loop serves": Case(9, 13, (1, 23), 1),
    "wider than the map": Case(4, 6, (1, 11), 3),
    "square larger than the map": Case(3, 4, (9, 9), 1),
    "map of one pixel": Case(1, 1, (5, 5), 3),
    "map of one row": Case(1, 7, (7, 1), 1),
    "single tap": Case(3, 4, (1, 1), 1),
}
# Sums of up to 25 products in another order: some float32 roundings of 6e-8 each.
FLOAT32 = {"rtol": 2e-6, "atol": 2e-6}
# The same for sums over all positions of a batch, up to 210 products.
FLOAT32_REDUCED = {"rtol": 1e-5, "atol": 1e-5}

# Of "xla", which is the reference itself, and of the TPU's kernel, which is interpreted slowly and
# has cases of its own in test_pallas.py, at every change.
FEW = {"xla": ("square", "map of one pixel"), "pallas": ("square",)}
# What these show is in the dilated, square and one-pixel ones too.
MORE = ("horizontal", "vertical", "oblong", "map of one row")
HELD = [name for name in CASES if name not in MORE]
# The same of padding for other platforms, by platform.
FEW_PADDED = {
    "tpu": ("horizontal dilated", "square", "wider than the map", "map of one pixel"),
    "gpu": ("square",),
}


every_implementation = pytest.mark.parametrize("implementation", implementations())
every_case_and_implementation = pytest.mark.parametrize(
    ("case", "implementation"),
    [
        pytest.param(
            case,
            implementation,
            id=f"{name}-{implementation}",
            marks=() if name in FEW.get(implementation, HELD) else pytest.mark.slow,
        )
        for name, case in CASES.items()
        for implementation in implementations()
    ],
)


@functools.cache
def draw(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, kernel and a cotangent of the output, as float32."""
    rng = np.random.default_rng(0)
    maps = (2, case.height, case.width, 3)
    shapes = (maps, (*case.kernel, 1, 3), maps)
    images, kernel, cotangent = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    return images, kernel, cotangent


@functools.cache
def brute_force_of(case: Case, dtype: str) -> np.ndarray:
    images, kernel, _ = (np.asarray(jnp.asarray(array, dtype)) for array in draw(case))
    return brute_force(images, kernel, case.dilation)


def brute_force(images: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    """Return the sum over taps and positions, loop by loop, in float64."""
    images, kernel = images.astype(np.float64), kernel.astype(np.float64)
    _, height, width, _ = images.shape
    rows, columns = kernel.shape[:2]
    out = np.zeros_like(images)
    for i, j, u, v in itertools.product(range(height), range(width), range(rows), range(columns)):
        row = i + dilation * (u - rows // 2)
        column = j + dilation * (v - columns // 2)
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j] += images[:, row, column] * kernel[u, v, 0]
    return out


def lax_reference(images: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    padding = [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


def value_and_pullback(convolve, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    @jax.jit
    def run(images, kernel, cotangent):
        out, pullback = jax.vjp(convolve, images, kernel)
        return out, *pullback(cotangent)

    out, images_gradient, kernel_gradient = run(*draw(case))
    return np.asarray(out), np.asarray(images_gradient), np.asarray(kernel_gradient)


@functools.cache
def computed(implementation: str, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def convolve(images, kernel):
        return depthwise_conv(images, kernel, dilation=case.dilation, implementation=implementation)

    return value_and_pullback(convolve, case)


@functools.cache
def reference(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return value_and_pullback(lambda x, w: lax_reference(x, w, case.dilation), case)


@every_case_and_implementation
def test_the_output_equals_lax(case, implementation):
    np.testing.assert_allclose(computed(implementation, case)[0], reference(case)[0], **FLOAT32)


@every_case_and_implementation
def test_the_output_equals_brute_force(case, implementation):
    expected = brute_force_of(case, "float32")
    np.testing.assert_allclose(computed(implementation, case)[0], expected, **FLOAT32)


@every_case_and_implementation
def test_the_gradient_of_the_images_equals_autodiff_of_lax(case, implementation):
    np.testing.assert_allclose(computed(implementation, case)[1], reference(case)[1], **FLOAT32)


@every_case_and_implementation
def test_the_gradient_of_the_kernel_equals_autodiff_of_lax(case, implementation):
    np.testing.assert_allclose(
        computed(implementation, case)[2], reference(case)[2], **FLOAT32_REDUCED
    )


@functools.cache
def difference(case: Case) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a direction of images, one of the kernel, and the slope along both."""
    images, kernel, cotangent = (array.astype(np.float64) for array in draw(case))
    rng = np.random.default_rng(1)
    toward_images = rng.standard_normal(images.shape)
    toward_kernel = rng.standard_normal(kernel.shape)

    def objective(step: float) -> float:
        out = brute_force(
            images + step * toward_images, kernel + step * toward_kernel, case.dilation
        )
        return float(np.sum(out * cotangent))

    # The convolution is bilinear, so the central difference is exact at any step.
    return toward_images, toward_kernel, (objective(0.5) - objective(-0.5)) / 1.0


@every_case_and_implementation
def test_the_gradients_equal_finite_differences(case, implementation):
    toward_images, toward_kernel, slope = difference(case)
    _, images_gradient, kernel_gradient = computed(implementation, case)
    terms = (images_gradient * toward_images).sum(), (kernel_gradient * toward_kernel).sum()
    # Float32 gradients against float64: roundings of 6e-8 of terms that partly cancel.
    scale = np.abs(images_gradient * toward_images).sum() + abs(terms[1])
    assert abs(sum(terms) - slope) < 1e-5 * max(scale, 1.0)


@pytest.mark.slow
@every_case_and_implementation
def test_bfloat16_is_accumulated_in_float32_and_rounded_once(case, implementation):
    images, kernel, _ = (jnp.asarray(array, jnp.bfloat16) for array in draw(case))
    convolve = jax.jit(
        functools.partial(depthwise_conv, dilation=case.dilation, implementation=implementation)
    )
    out = convolve(images, kernel)
    expected = brute_force_of(case, "bfloat16")
    assert out.dtype == jnp.bfloat16
    # One rounding to 8 significant bits is off by up to 2**-9 of the value. Roundings between
    # the taps would be off by as much of every partial sum.
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=2**-8, atol=1e-5)


@every_implementation
def test_bfloat16_gradients_keep_the_dtype_of_what_they_belong_to(implementation):
    case = CASES["square"]
    images, kernel, cotangent = draw(case)

    def loss(images, kernel):
        out = depthwise_conv(images, kernel, implementation=implementation)
        return jnp.vdot(out.astype(jnp.float32), cotangent)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(images, jnp.bfloat16), kernel)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]
    # Inputs, cotangent and result are each rounded to 8 significant bits, and sums of up to 112
    # such products are compared with their own size, not with what is left after cancelling.
    for gradient, expected in zip(gradients, reference(case)[1:], strict=True):
        error = np.abs(np.asarray(gradient, np.float32) - expected).max()
        assert error < 2**-6 * np.abs(expected).max()


@pytest.mark.parametrize("implementation", ["shift", "toeplitz", "pallas"])
def test_the_gradient_of_a_float32_kernel_is_not_rounded_to_bfloat16(implementation):
    images, kernel, _ = draw(CASES["square"])
    images = jnp.asarray(images, jnp.bfloat16)

    def loss(kernel):
        return jnp.sum(depthwise_conv(images, kernel, implementation=implementation))

    gradient = jax.jit(jax.grad(loss))(kernel)
    rounded = gradient.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.any(gradient != rounded)


@every_implementation
def test_a_float32_kernel_is_cast_to_the_dtype_of_the_images(implementation):
    images, kernel, _ = draw(CASES["square"])
    images = jnp.asarray(images, jnp.bfloat16)
    convolve = jax.jit(functools.partial(depthwise_conv, implementation=implementation))
    np.testing.assert_array_equal(
        convolve(images, kernel), convolve(images, jnp.asarray(kernel, jnp.bfloat16))
    )


@every_implementation
def test_a_second_call_under_jit_gives_the_same_output_without_tracing_again(implementation):
    images, kernel, _ = draw(CASES["horizontal"])
    traces = []

    @jax.jit
    def convolve(images, kernel):
        traces.append(images.shape)
        return depthwise_conv(images, kernel, implementation=implementation)

    first, second = convolve(images, kernel), convolve(images, kernel)
    np.testing.assert_array_equal(first, second)
    assert len(traces) == 1


# The TPU's kernel is mapped in test_pallas.py.
@pytest.mark.parametrize(
    "implementation",
    [pytest.param(n, marks=pytest.mark.slow if n == "pallas" else ()) for n in implementations()],
)
def test_vmap_over_images_and_kernels_equals_a_loop(implementation):
    rng = np.random.default_rng(2)
    images = rng.standard_normal((3, 2, 5, 7, 4)).astype(np.float32)
    kernels = rng.standard_normal((3, 3, 3, 1, 4)).astype(np.float32)

    def loss(images, kernel):
        out = depthwise_conv(images, kernel, dilation=2, implementation=implementation)
        return jnp.sum(out**2), out

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    mapped = jax.tree.leaves(jax.jit(jax.vmap(run))(images, kernels))
    one = jax.jit(run)
    looped = [jax.tree.leaves(one(x, w)) for x, w in zip(images, kernels, strict=True)]
    for batch, singles in zip(mapped, zip(*looped, strict=True), strict=True):
        # Sums of up to 70 squares of about 9.
        np.testing.assert_allclose(batch, np.stack(singles), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@every_implementation
def test_gradients_of_a_batch_that_is_split_over_explicit_axes(implementation):
    images, kernel, cotangent = draw(CASES["square"])

    def both(images, kernel, cotangent):
        out, pull_back = jax.vjp(
            lambda x, w: depthwise_conv(x, w, implementation=implementation), images, kernel
        )
        return out, *pull_back(cotangent)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        split = [jax.device_put(x, jax.P("data")) for x in (images, cotangent)]
        found = jax.jit(both)(split[0], jnp.asarray(kernel), split[1])
        assert jax.typeof(found[0]).sharding.spec[0] == "data"
    for one, expected in zip(found, reference(CASES["square"]), strict=True):
        np.testing.assert_allclose(one, expected, **FLOAT32_REDUCED)


@pytest.mark.parametrize(
    ("case", "platform"),
    [
        pytest.param(
            case, platform, id=f"{name}-{platform}", marks=() if name in few else pytest.mark.slow
        )
        for name, case in CASES.items()
        for platform, few in FEW_PADDED.items()
    ],
)
def test_shifted_slices_are_the_same_as_other_platforms_pad(case, platform, monkeypatch):
    monkeypatch.setattr("lska_jax.ops.shift.target_platform", lambda: platform)
    shifted = functools.partial(depthwise_conv, dilation=case.dilation, implementation="shift")
    assert "bitcast_convert_type" not in str(jax.make_jaxpr(shifted)(*draw(case)[:2]))
    for one, expected in zip(value_and_pullback(shifted, case), reference(case), strict=True):
        np.testing.assert_allclose(one, expected, **FLOAT32_REDUCED)


def test_auto_convolves_as_the_reference_does():
    images, kernel, _ = draw(CASES["square"])
    out = jax.jit(depthwise_conv)(images, kernel)
    np.testing.assert_allclose(out, reference(CASES["square"])[0], **FLOAT32)


@pytest.mark.parametrize("dilation", [np.int64(2), np.array(2)])
def test_a_dilation_may_be_an_integer_of_numpy(dilation):
    images, kernel, _ = draw(CASES["square dilated"])
    run = functools.partial(depthwise_conv, *map(jnp.asarray, (images, kernel)))
    np.testing.assert_array_equal(run(dilation=dilation), run(dilation=2))


@pytest.mark.parametrize("implementation", ["auto", *implementations()])
def test_an_empty_map_stays_empty(implementation):
    def gradient(kernel, shape):
        def convolve(kernel):
            return depthwise_conv(jnp.zeros(shape), kernel, implementation=implementation)

        out, pull_back = jax.vjp(convolve, kernel)
        assert out.shape == shape
        return pull_back(out)[0]

    shapes = (0, 5, 5, 3), (2, 0, 5, 3), (2, 5, 0, 3)
    found = jax.jit(lambda kernel: [gradient(kernel, shape) for shape in shapes])
    np.testing.assert_array_equal(found(jnp.ones((3, 3, 1, 3))), 0.0)


def _note(used, what, original, *arguments):
    used.append(what)
    return original(*arguments)


def test_each_part_takes_the_formulation_that_is_named_for_it(monkeypatch):
    used = []
    for name in implementations():
        module = formulation_module(name)
        for part in ("convolve", "weight_gradient"):
            spy = functools.partial(_note, used, (name, part), getattr(module, part))
            monkeypatch.setattr(module, part, spy)
    case = CASES["square dilated"]
    names = ("toeplitz", "shift", "xla")

    def convolve(images, kernel):
        return depthwise_conv(images, kernel, dilation=case.dilation, implementation=names)

    parts = value_and_pullback(convolve, case)
    assert used == [("toeplitz", "convolve"), ("shift", "convolve"), ("xla", "weight_gradient"),
                    ("xla", "convolve")]  # fmt: skip
    for part, expected in zip(parts, reference(case), strict=True):
        np.testing.assert_allclose(part, expected, **FLOAT32_REDUCED)


@pytest.mark.parametrize("implementation", ["shift", "toeplitz", ("shift", "toeplitz", "xla")])
def test_second_derivatives_equal_those_of_lax(implementation):
    case = CASES["horizontal dilated"]
    images, kernel, cotangent = draw(case)

    def second(convolve):
        def slope(images, kernel):
            loss = lambda images, kernel: jnp.sum(convolve(images, kernel) ** 2 * cotangent)  # noqa: E731
            return jnp.sum(jax.grad(loss)(images, kernel) ** 2)

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(images, kernel)

    ours = second(
        lambda x, w: depthwise_conv(x, w, dilation=case.dilation, implementation=implementation)
    )
    expected = second(lambda x, w: lax_reference(x, w, case.dilation))
    for gradient, wanted in zip(ours, expected, strict=True):
        # Products of four convolutions: float32 roundings against the largest entry.
        assert np.abs(gradient - wanted).max() < 1e-5 * np.abs(wanted).max()
