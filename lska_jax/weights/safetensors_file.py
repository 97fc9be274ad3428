"""safetensors files (https://huggingface.co/docs/safetensors): length, JSON header, data."""

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.weights.conversion import StoredArray

_LENGTH_BYTES = 8
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
}


def open_safetensors(path: Path) -> dict[str, StoredArray]:
    """Return {name: array} of a file; arrays are read from the disk when asked for.

    Raises:
      ValueError: the file is truncated or damaged, or names an array twice.
    """
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
        names = file.keys()
        slices = {name: file.get_slice(name) for name in names}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}).") from error
    _refuse_duplicates(path)

    def reader(name: str) -> Any:
        return lambda: file.get_tensor(name)

    return {
        # Other types keep the format's own name, as in F8_E4M3.
        name: StoredArray(shapes[name], _DTYPES.get(dtypes[name], dtypes[name]), reader(name))
        for name in names
    }


def save_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str]
) -> None:
    """Write {name: array} to a file.

    Raises:
      OSError: it cannot be written, or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The library writes the buffer as it lies in memory, whatever its strides.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        save_file(contiguous, path, metadata=dict(metadata))
    except SafetensorError as error:
        # The library's error for all that the system refuses.
        raise OSError(f"{path} cannot be written: {error}.") from error


def _refuse_duplicates(path: Path) -> None:
    """Refuse a header that names an array twice: the library keeps the last without a word."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        header = file.read(length)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"{path} names these twice in its header: {', '.join(twice)}")
        return dict(pairs)

    json.loads(header, object_pairs_hook=unique)
