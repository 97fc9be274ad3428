"""Weights that are stored in float16: half the bytes, read as float32.

What has one axis stays float32: biases, norms, their statistics and layer scales. They are a few
hundredths of the bytes, and a variance may lie beyond float16's least or largest number.
"""

from collections.abc import Mapping

import numpy as np

STORED_DTYPES = ("float32", "float16")
# Of one rounding to 11 bits, relative to the value.
_ROUNDING = 2.0**-11


def in_stored_dtype(arrays: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Return arrays as they are stored.

    Args:
      arrays: parameters and statistics by path, float32.
      dtype: one of ``STORED_DTYPES``; with "float16" arrays of two axes and more are rounded to
        it, unless ``fits_float16`` says no.

    Raises:
      ValueError: another dtype.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; weights are stored in {' or '.join(STORED_DTYPES)}.")
    if dtype == "float32":
        return dict(arrays)
    return {
        path: array.astype(np.float16) if array.ndim > 1 and fits_float16(array) else array
        for path, array in arrays.items()
    }


def fits_float16(array: np.ndarray) -> bool:
    """Tell whether float16 holds an array to within the rounding of its 11 bits, by the norm.

    Not so if a value is beyond 65,504, or if so many are below 6e-5, where the bits get fewer, that
    the error is larger than that of one rounding each: |array - rounded| <= 2^-11 |array|.
    """
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16).astype(np.float64)
    # inf - inf is not a number, and none is below anything.
    with np.errstate(invalid="ignore"):
        error = np.linalg.norm((array - rounded).ravel())
    return bool(error <= _ROUNDING * np.linalg.norm(array.astype(np.float64).ravel()))
