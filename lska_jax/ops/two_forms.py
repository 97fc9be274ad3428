"""One result computed in two ways: the quicker one without gradients, another one for them.

A form that is quick in inference may take longer with gradients, or keep more for them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from lska_jax.ops.platform import vary_alike


def apply(quick: Callable[..., Array], differentiated: Callable[..., Array], *arrays: Any) -> Array:
    """Return quick(*arrays); where gradients are asked for, differentiated(*arrays) and its own.

    Args:
      quick: how it is computed without gradients.
      differentiated: how it is computed with them; equal but for rounding.
      *arrays: trees of floating-point arrays: all that the forms compute with. Neither closes over
        others.
    """
    return _apply(quick, differentiated, *vary_alike(arrays))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _apply(
    quick: Callable[..., Array], differentiated: Callable[..., Array], *arrays: Any
) -> Array:
    return quick(*arrays)


def _forward(
    quick: Callable[..., Array], differentiated: Callable[..., Array], *arrays: Any
) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
    return jax.vjp(differentiated, *arrays)


def _backward(
    quick: Callable[..., Array],
    differentiated: Callable[..., Array],
    pull_back: Callable[[Array], tuple[Any, ...]],
    gradient: Array,
) -> tuple[Any, ...]:
    return pull_back(gradient)


_apply.defvjp(_forward, _backward)
