"""The error of forward-mode differentiation, in words that say what to do.

Operations with gradients of their own keep less for the backward pass than autodiff would. JAX
differentiates such functions in reverse mode alone, and its error names neither the function nor
another way.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _ReverseModeOnlyError(TypeError):
    """What JAX raises, with the name of the operation."""


def reverse_mode_only(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with an error of its own for ``jax.jvp``, ``jacfwd`` and ``hessian``.

    Under ``jax.jit`` JAX refuses only later, while it compiles, and the error is its own.

    Args:
      function: an operation on arrays that calls functions of ``jax.custom_vjp``.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except _ReverseModeOnlyError as error:  # of an operation that this one calls
            raise _ReverseModeOnlyError(_message(function)) from error
        except TypeError as error:
            if "forward-mode" not in str(error) or "custom_vjp" not in str(error):
                raise
            raise _ReverseModeOnlyError(_message(function)) from error

    return run


def _message(function: Any) -> str:
    return (
        f"{function.__name__} has derivatives of reverse mode only. Use jax.grad, jax.vjp or "
        "jax.jacrev instead of jax.jvp or jax.jacfwd, and jax.jacrev(jax.grad(f)) instead of "
        "jax.hessian(f)."
    )
