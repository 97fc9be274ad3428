"""What depthwise_conv refuses, and what it says then."""

import inspect

import jax.numpy as jnp
import pytest

from lska_jax.ops import depthwise_conv


@pytest.mark.parametrize("shape", [(2, 3, 1, 3), (3, 4, 1, 3)])
def test_an_even_kernel_is_refused(shape):
    images = jnp.zeros((1, 5, 5, 3))
    with pytest.raises(ValueError, match="odd height and width.*got") as refusal:
        depthwise_conv(images, jnp.zeros(shape))
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("shape", [(3, 3, 1, 4), (3, 3, 2, 3)])
def test_a_kernel_for_other_channels_is_refused(shape):
    images = jnp.zeros((1, 5, 5, 3))
    with pytest.raises(ValueError, match=r"\(kh, kw, 1, C\) with C = 3.*got") as refusal:
        inspect.unwrap(depthwise_conv)(images, jnp.zeros(shape))
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("dilation", [0, -1, 2.0])
def test_a_dilation_below_one_or_not_whole_is_refused(dilation):
    with pytest.raises(ValueError, match=f"whole number, at least 1, got {dilation}"):
        inspect.unwrap(depthwise_conv)(
            jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 1, 3)), dilation=dilation
        )


@pytest.mark.parametrize(
    ("images", "kernel", "message"),
    [
        ("5 5 3 f4", "3 3 1 3 f4", r"images must have shape \(B, H, W, C\), got \(5, 5, 3\)"),
        ("1 5 5 3 f2", "3 3 1 3 f4", "images must be float32 or bfloat16, got float16"),
        ("1 5 5 3 f4", "3 3 3 f4", r"\(kh, kw, 1, C\).*got \(3, 3, 3\)"),
        ("1 5 5 3 f4", "3 3 1 3 i4", "kernel must hold floating-point values, got int32; cast"),
    ],
)
def test_arrays_of_another_rank_or_dtype_are_refused(images, kernel, message):
    arrays = [jnp.zeros([int(n) for n in text.split()[:-1]], text.split()[-1])
              for text in (images, kernel)]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(depthwise_conv)(*arrays)


@pytest.mark.parametrize(
    "implementation", ["fast", ("shift", "xla"), ("shift", "xla", "auto"), None]
)
def test_an_unknown_implementation_is_refused_naming_the_known(implementation):
    with pytest.raises(ValueError, match="allowed: auto, xla, shift, toeplitz, pallas") as refusal:
        inspect.unwrap(depthwise_conv)(
            jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 1, 3)), implementation=implementation
        )
    assert repr(implementation) in str(refusal.value)
