"""Sizes of the depth-wise cascade that stands for one large kernel.

LKA and LSKA replace a k x k depth-wise convolution by a local one of size 2d - 1 followed by one
of size n with dilation d (arXiv 2309.01439, section 3.1; kernel table of the reference code).
Pure Python, so that a config can be checked before anything heavy is imported.
"""

import dataclasses
from typing import SupportsIndex

from lska_jax.ops.plain_numbers import plain_int

DEFAULT_KERNEL_SIZE = 23


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """Sizes of the two steps of the cascade.

    Attributes:
      k: extent of the stacked kernel, d * (n - 1) + (2d - 1).
      dilation: d, the dilation of the second step.
      local_size: 2d - 1, the size of the first, undilated step.
      dilated_size: n, the number of taps of the second step.
    """

    k: int
    dilation: int
    local_size: int
    dilated_size: int


def default_dilation(k: int) -> int:
    """Return the reference code's dilation for k: 2 for 7 and 11, otherwise 3."""
    return 2 if k in (7, 11) else 3


def kernel_spec(k: SupportsIndex, *, dilation: SupportsIndex | None = None) -> KernelSpec:
    """Split a kernel of extent k into a local and a dilated step.

    The stacked extent d(n - 1) + (2d - 1) equals k exactly when n = (k + 1 - d) / d, which has to
    be a whole odd number so that both steps can be centred.

    Args:
      k: extent of the large kernel, in pixels; an int, of NumPy too.
      dilation: d; None takes the reference code's choice for this k.

    Returns:
      The sizes of both steps, in Python's ints.

    Raises:
      TypeError: k or dilation is not an int.
      ValueError: no centred cascade has this extent; the message names the nearest that do.
    """
    k = plain_int("k", k)
    d = default_dilation(k) if dilation is None else plain_int("dilation", dilation)
    if d < 1:
        raise ValueError(f"dilation must be at least 1, got {d}.")
    if not _is_valid(k, d):
        raise ValueError(_explain_invalid(k, d, is_default=dilation is None))
    return KernelSpec(k=k, dilation=d, local_size=2 * d - 1, dilated_size=(k + 1 - d) // d)


def check_odd_kernel(k: SupportsIndex) -> int:
    """Return k, a plain int, if it is a positive odd number, as the trivial forms need.

    Raises:
      TypeError: k is not an int.
      ValueError: k is even or not positive; the message names the nearest odd sizes.
    """
    k = plain_int("k", k)
    if k < 1 or k % 2 == 0:
        nearest = [1] if k < 1 else [k - 1, k + 1]
        raise ValueError(
            f"k={k} is not a valid kernel size: the trivial forms take a positive odd k. "
            f"Nearest valid: {_join(nearest)}."
        )
    return k


def _is_valid(k: int, d: int) -> bool:
    # n = (k + 1) / d - 1 is whole and odd exactly when 2d divides k + 1.
    return k >= 2 * d - 1 and (k + 1) % (2 * d) == 0


def _explain_invalid(k: int, d: int, *, is_default: bool) -> str:
    def works(candidate: int) -> bool:
        return _is_valid(candidate, default_dilation(candidate) if is_default else d)

    below = next((c for c in range(k - 1, 0, -1) if works(c)), None)
    above = next(c for c in range(max(k, 0) + 1, max(k, 0) + 4 * d + 8) if works(c))
    nearest = [c for c in (below, above) if c is not None]
    message = (
        f"k={k} with dilation d={d} is not a valid kernel size: n = (k + 1 - d) / d must be a "
        f"whole odd number, here it is {(k + 1 - d) / d:g}. "
        f"Nearest valid k{'' if is_default else f' for d={d}'}: {_join(nearest)}."
    )
    # A single dilated tap (n = 1) is valid, but nobody wants it.
    other = [c for c in range(2, max(k, 0) // 4 + 1) if c != d and _is_valid(k, c)]
    return message + (f" Or keep k={k} and pass dilation={_join(other)}." if other else "")


def _join(values: list[int]) -> str:
    return " or ".join(str(v) for v in values)
