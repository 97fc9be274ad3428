"""The gate against its steps one by one."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lska_jax.ops import lska

LSKA_STEPS = [((1, 3), 1), ((3, 1), 1), ((1, 5), 2), ((5, 1), 2)]
LKA_STEPS = [((3, 3), 1), ((3, 3), 2)]
TRIVIAL_STEPS = [((1, 7), 1)]
CHANNELS = 6


def draw(steps, shape=(2, 5, 6, CHANNELS)):
    rng = np.random.default_rng(0)

    def normal(*size):
        return jnp.asarray(0.5 * rng.standard_normal(size), jnp.float32)

    kernels = [normal(*size, 1, CHANNELS) for size, _ in steps]
    biases = [normal(CHANNELS) for _ in steps]
    return normal(*shape), kernels, biases, (normal(CHANNELS, CHANNELS), normal(CHANNELS))


def step_by_step(images, kernels, biases, pointwise, dilations):
    """The definition, in lax alone."""
    out = images
    for kernel, bias, d in zip(kernels, biases, dilations, strict=True):
        padding = [(d * (size // 2),) * 2 for size in kernel.shape[:2]]
        out = bias[None, None, None] + lax.conv_general_dilated(
            out, kernel, (1, 1), padding, rhs_dilation=(d, d),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=CHANNELS,
        )  # fmt: skip
    mixed = jnp.einsum("bhwc,cd->bhwd", out, pointwise[0])
    return images * (mixed + pointwise[1][None, None, None])


def value_and_gradients(function, arrays):
    def loss(*arrays):
        out = function(*arrays)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    (_, out), gradients = run(*arrays)
    return [out, *jax.tree.leaves(gradients)]


@functools.cache
def expected_of(steps):
    dilations = [d for _, d in steps]
    return value_and_gradients(lambda *a: step_by_step(*a, dilations), draw(steps))


@pytest.mark.parametrize(
    ("steps", "implementation"),
    [
        # The longest chain in every formulation, the others in one; the kernel is interpreted
        # slowly, and its other chains are those of test_pallas.py.
        pytest.param(steps, name, marks=() if name in held else pytest.mark.slow)
        for steps, held in (
            (LSKA_STEPS, ("auto", "xla", "shift", "toeplitz")),
            (LKA_STEPS, ("auto",)),
            (TRIVIAL_STEPS, ("pallas",)),
        )
        for name in ("auto", "xla", "shift", "toeplitz", "pallas")
    ],
)
def test_value_and_gradients_equal_the_steps_one_by_one(steps, implementation):
    arrays, dilations = draw(steps), [d for _, d in steps]
    expected = expected_of(tuple(steps))
    ours = value_and_gradients(
        lambda *a: lska(*a, dilations=dilations, implementation=implementation), arrays
    )
    for one, other in zip(ours, expected, strict=True):
        # Sums of some hundred products over five convolutions, against the largest entry.
        assert np.abs(one - other).max() < 2e-5 * np.abs(other).max()


def test_three_names_may_be_given_as_a_list():
    arrays, dilations = draw(LSKA_STEPS), [d for _, d in LSKA_STEPS]
    run = jax.jit(
        lambda *a: lska(*a, dilations=dilations, implementation=["toeplitz", "shift", "xla"])
    )
    out, expected = run(*arrays), expected_of(tuple(LSKA_STEPS))[0]
    assert np.abs(out - expected).max() < 2e-5 * np.abs(expected).max()


def test_bfloat16_comes_back_as_bfloat16_and_close():
    images, kernels, biases, pointwise = draw(LSKA_STEPS)
    arrays = (images.astype(jnp.bfloat16), kernels, biases, pointwise)
    dilations = [d for _, d in LSKA_STEPS]
    out, images_gradient, *rest = value_and_gradients(
        lambda *a: lska(*a, dilations=dilations), arrays
    )
    assert out.dtype == images_gradient.dtype == jnp.bfloat16
    assert {gradient.dtype for gradient in rest} == {jnp.dtype(jnp.float32)}
    expected = expected_of(tuple(LSKA_STEPS))[0]
    # Inputs and each of the six results are rounded to 8 significant bits.
    error = np.abs(np.asarray(out, np.float32) - expected).max()
    assert error < 6 * 2**-8 * np.abs(expected).max()


def test_the_backward_pass_is_handed_two_maps_and_no_more():
    # Two steps stand for all four: traced op by op.
    steps = LSKA_STEPS[2:]
    arrays, dilations = draw(steps), [d for _, d in steps]
    _, pull_back = jax.vjp(lambda *a: lska(*a, dilations=dilations), *arrays)
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if getattr(leaf, "ndim", 0) == 4]
    assert sum(leaf.shape == arrays[0].shape for leaf in kept) == 2


@pytest.mark.parametrize("of", [np.array, tuple])
def test_dilations_may_be_integers_of_numpy(of):
    arrays, dilations = draw(LSKA_STEPS), [d for _, d in LSKA_STEPS]
    traced = (
        jax.make_jaxpr(lambda *a, d=d: lska(*a, dilations=d, implementation="xla"))(*arrays)
        for d in (of(np.array(dilations)), dilations)
    )
    assert len({str(jaxpr) for jaxpr in traced}) == 1


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.hessian])
def test_forward_mode_is_refused_with_what_works_instead(derivative):
    images, *rest = draw(LSKA_STEPS)
    with pytest.raises(TypeError, match=r"lska has derivatives of reverse mode only.*jacrev"):
        jax.eval_shape(
            derivative(lambda x: jnp.sum(lska(x, *rest, dilations=[1, 1, 2, 2]))), images
        )


def test_second_derivatives_in_reverse_mode_are_those_of_the_steps_one_by_one():
    (images, *rest), dilations = draw(LSKA_STEPS), [d for _, d in LSKA_STEPS]

    def second(function):
        def loss(scale):
            return jnp.sum(function(scale * images, *rest, dilations) ** 2)

        return jax.jit(jax.jacrev(jax.grad(loss)))(jnp.float32(0.7))

    ours = second(lambda *a: lska(*a[:-1], dilations=a[-1]))
    np.testing.assert_allclose(ours, second(step_by_step), rtol=1e-4)


def test_three_times_one_name_is_that_name():
    arrays, dilations = draw(TRIVIAL_STEPS), [1]
    one, three = (
        str(
            jax.make_jaxpr(lambda *a, n=n: lska(*a, dilations=dilations, implementation=n))(*arrays)
        )
        for n in ("pallas", ["pallas"] * 3)
    )
    assert one.count("pallas_call") == three.count("pallas_call") > 0


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, jnp.zeros((5, 6, CHANNELS)), "images must have shape"),
        (1, [jnp.zeros((1, 5, 1, CHANNELS + 1))] * 4, r"kernels\[0\] must have shape"),
        (2, [jnp.zeros((1,))] * 4, r"biases\[0\] must have shape \(6,\), got \(1,\)"),
        (3, (jnp.zeros((CHANNELS, 1)), jnp.zeros((1,))), r"pointwise\[0\] must have shape"),
    ],
)
def test_parts_of_another_shape_are_refused(part, value, message):
    arrays = list(draw(LSKA_STEPS))
    arrays[part] = value
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lska)(*arrays, dilations=[1, 1, 2, 2])


def test_an_empty_batch_stays_empty_with_kernels_too():
    _, *parameters = draw(LSKA_STEPS)
    images = jnp.zeros((0, 5, 6, CHANNELS))
    out = lska(images, *parameters, dilations=[1, 1, 2, 2], implementation="pallas")
    assert out.shape == images.shape


def test_parts_that_are_not_as_many_are_refused():
    images, kernels, biases, pointwise = draw(LSKA_STEPS)
    with pytest.raises(ValueError, match="one entry for each step; got 4, 4 and 3"):
        lska(images, kernels, biases, pointwise, dilations=[1, 1, 2])
