"""A severity as an argument of a compiled program.

Constants that are plain numbers are read from a table, and loops run as often as one says. Where
shapes differ, such as the reach of a filter, every setting has a branch of its own: nothing is
padded, so a severity costs and gives what it would in a program of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

Severity: TypeAlias = int | Int[Array, ""]
"""1 to 5, in a program or a plain number."""

Setting = TypeVar("Setting")
Arrays = TypeVar("Arrays")


def at(severity: Severity, values: Sequence[Any] | np.ndarray) -> Array:
    """Return the value of a severity; integers are int32, all other numbers float32.

    Args:
      severity: 1 to the number of values.
      values: one for each severity, numbers or arrays of one shape.
    """
    table = np.asarray(values)
    dtype = jnp.int32 if np.issubdtype(table.dtype, np.integer) else jnp.float32
    return jnp.asarray(table, dtype)[severity - 1]


def switched(
    severity: Severity,
    settings: Sequence[Setting],
    function: Callable[..., Any],
    *operands: Any,
) -> Any:
    """Return function(setting of the severity, *operands); each different setting is compiled once.

    Args:
      severity: 1 to the number of settings.
      settings: one for each severity, hashable; equal ones share a branch.
      function: gives results of the same shapes for all of them.
      *operands: arrays.
    """
    different = list(dict.fromkeys(settings))
    if len(different) == 1:
        return function(different[0], *operands)
    branches = [partial(function, setting) for setting in different]
    return jax.lax.switch(
        at(severity, [different.index(setting) for setting in settings]), branches, *operands
    )


def written_out(severity: Severity, arrays: Arrays) -> Arrays:
    """Return arrays as they are, computed whole before anything reads them.

    XLA's CPU backend otherwise merges what follows with what is ahead, and computes the latter
    again for every value that is read; a barrier is gone before it does. A loop that never runs
    keeps them apart, where the severity is an argument: XLA cannot know that it is below 8.
    """
    never = severity // 8
    return jax.lax.fori_loop(
        0, never, lambda _, kept: jax.tree.map(lambda array: array + 1, kept), arrays
    )
