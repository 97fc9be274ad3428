"""One line of a results file: its sum, and the check of all that it says before it is used.

    {"result": {...}, "sha256": "0123456789abcdef"}

The sum is over the line without it, so that one changed bit is noticed. Arrays are bounded before
they are unpacked: a few MB of zeros on the disk would be GBs in memory.
"""

import base64
import dataclasses
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lska_jax.robustness.cells import PROVENANCES, Cell, CellResult, Hole, ModelStamp, Score

_SUM = re.compile(rb', "sha256": "([0-9a-f]{16})"\}$')
_SUM_DIGITS = 16
# An outcome of ImageNet's 50,000 images has 200 kB.
_LARGEST_ARRAY_BYTES = 64 * 2**20
_DTYPES = frozenset({"|b1", "|u1", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"})
# What a damaged line raises on its way through the checks below.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)

Line = list[Cell] | ModelStamp | CellResult | Hole


def encode_line(line: Mapping[str, Any]) -> str:
    """Return a line with its sum and its end."""
    text = json.dumps(line, allow_nan=False)
    return f'{text[:-1]}, "sha256": "{_digest(text.encode())}"}}\n'


def read_object(line: bytes, *, is_summed: bool) -> dict[str, Any]:
    """Return the JSON object of a line without its sum.

    Args:
      line: without its end.
      is_summed: whether it must have a sum; files of version 1 have none.

    Raises:
      ValueError: the line is no strict JSON object, or its sum is missing or does not fit.
    """
    found = _SUM.search(line)
    if found:
        line = line[: found.start()] + b"}"
        if _digest(line) != found[1].decode():
            raise ValueError("its sum does not fit: it was changed after it was written")
    elif is_summed:
        raise ValueError("it has no sum")
    content = json.loads(line, parse_constant=_refuse_constant)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def decode_line(content: Mapping[str, Any]) -> Line:
    """Return what a line after the header says.

    Raises:
      One of ``DAMAGE``: it says something else.
    """
    ((kind, said),) = content.items()
    if kind not in _DECODERS:
        raise ValueError(f"unknown kind of line {kind!r}")
    return _DECODERS[kind](said)


def encode_result(result: CellResult) -> dict[str, Any]:
    """Return a result as JSON values."""
    record = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    record["cell"] = list(result.cell)
    record["scores"] = {name: list(score) for name, score in result.scores.items()}
    record["outcomes"] = {name: _encode_array(array) for name, array in result.outcomes.items()}
    return record


def _decode_result(record: Mapping[str, Any]) -> CellResult:
    for name, is_right in _RESULT_TYPES.items():
        if name in record:
            _checked(record, name, is_right)
    result = CellResult(
        **{
            **record,
            "cell": _decode_cell(record["cell"]),
            "scores": {name: _decode_score(score) for name, score in record["scores"].items()},
            "outcomes": {name: _decode_array(a) for name, a in record["outcomes"].items()},
        }
    )
    right = result.outcomes.get("top1")
    if right is not None and right.shape != (result.num_images,):
        raise ValueError(f"top1 has shape {right.shape} for {result.num_images} images")
    return result


def _decode_plan(cells: Any) -> list[Cell]:
    return [_decode_cell(cell) for cell in cells]


def _decode_hole(hole: Any) -> Hole:
    return Hole(_decode_cell(hole["cell"]), _checked(hole, "reason", _is_text))


def _decode_model(record: Mapping[str, Any]) -> ModelStamp:
    for name in ("name", "sha256", "preprocessing"):
        _checked(record, name, _is_text)
    _checked(record, "facts", lambda facts: isinstance(facts, dict))
    _checked({"k": None, **record["facts"]}, "k", _is_kernel_size)
    return ModelStamp(**record)


def _decode_cell(cell: Any) -> Cell:
    is_cell = (
        isinstance(cell, list)
        and len(cell) == 3
        and all(map(_is_text, cell[:2]))
        and _is_count(cell[2])
    )
    if not is_cell:
        raise ValueError(f"{str(cell)[:80]!r} is no cell")
    return Cell(*cell)


def _decode_score(score: Any) -> Score:
    is_score = isinstance(score, list) and len(score) == 3 and all(map(_is_value, score))
    if not is_score:
        raise ValueError(f"{str(score)[:80]!r} is no score")
    return Score(*score)


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    content = np.packbits(array).tobytes() if array.dtype == np.bool_ else array.tobytes()
    encoded = base64.b85encode(zlib.compress(content)).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib_b85": encoded}


def _decode_array(record: Mapping[str, Any]) -> np.ndarray:
    if record["dtype"] not in _DTYPES:
        raise ValueError(f"an array of {str(record['dtype'])[:80]}")
    dtype, shape = np.dtype(record["dtype"]), record["shape"]
    if not isinstance(shape, list) or len(shape) > 2 or not all(map(_is_count, shape)):
        raise ValueError(f"an array of shape {str(shape)[:80]}")
    count = math.prod(shape)
    if count * dtype.itemsize > _LARGEST_ARRAY_BYTES:
        raise ValueError(f"an array of {count:,} values; at most 64 MiB are read")
    num_bytes = -(-count // 8) if dtype == np.bool_ else count * dtype.itemsize
    content = _unpack(base64.b85decode(record["zlib_b85"]), num_bytes)
    if dtype == np.bool_:
        bits = np.frombuffer(content, np.uint8)
        return np.unpackbits(bits, count=count).astype(bool).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


def _unpack(packed: bytes, num_bytes: int) -> bytes:
    """Return exactly so many bytes; no more are ever unpacked."""
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(packed, num_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"an array that cannot be unpacked ({error})") from error
    if len(content) != num_bytes or not unpacking.eof:
        raise ValueError("an array of another size than its shape")
    return content


def _checked(record: Mapping[str, Any], name: str, is_right: Callable[[Any], bool]) -> Any:
    if not is_right(record[name]):
        raise ValueError(f"{name} is {str(record[name])[:80]!r}")
    return record[name]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_kernel_size(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value < 2**16)


def _is_value(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


_RESULT_TYPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("model", "origin", "preprocessing", "note"), _is_text),
    "provenance": lambda value: value in PROVENANCES,
    **dict.fromkeys(("num_images", "num_broken"), _is_count),
    "seconds": lambda value: value is not None and _is_value(value),
}


_DECODERS: dict[str, Callable[[Any], Line]] = {
    "plan": _decode_plan,
    "model": _decode_model,
    "hole": _decode_hole,
    "result": _decode_result,
}


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:_SUM_DIGITS]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
