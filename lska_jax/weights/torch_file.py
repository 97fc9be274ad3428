"""PyTorch checkpoints (.pth, .pth.tar, .pt, .bin): read as data, never as code."""

import argparse
import contextlib
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lska_jax.weights.conversion import StoredArray

_MISSING_TORCH = (
    "Reading {path} needs PyTorch, which is not installed: pip install 'lska-jax[torch]', or "
    "pip install torch. A .safetensors file needs none."
)


def open_torch(path: Path) -> Any:
    """Return what a PyTorch file holds, tensors as ``StoredArray``.

    Only data is unpickled (``weights_only=True``), tensors are mapped into memory where the
    format allows it, and the checksums of the archive are verified.

    Raises:
      ImportError: PyTorch is not installed.
      ValueError: the file holds code, is truncated, damaged or no PyTorch file.
    """
    if not _may_be_torch(path):
        raise ValueError(
            f"{path} is no checkpoint: neither a PyTorch file nor a safetensors file. Of a model "
            "folder or a run, give the folder."
        )
    try:
        import torch
    except ImportError as error:
        raise ImportError(_MISSING_TORCH.format(path=path)) from error

    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_archive(path)
    elif _starts_as_zip(path):
        raise ValueError(
            f"{path} is truncated: it begins as a PyTorch archive, its end is missing."
        )
    try:
        with _harmless_globals(torch), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    # Broken bytes end in errors of every kind, from deep inside.
    except Exception as error:
        raise ValueError(_explain(path, error)) from error
    return _without_torch(content, torch)


def _may_be_torch(path: Path) -> bool:
    """Tell whether a file is an archive or a pickle of any protocol that PyTorch has written."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


@contextlib.contextmanager
def _harmless_globals(torch: Any) -> Iterator[None]:
    """Let the unpickler make what training scripts save beside the weights and nobody reads.

    timm keeps its command line (a Namespace) and the metric (a NumPy scalar).
    """
    from numpy._core import multiarray

    kinds = {type(np.dtype(code)) for code in ("f8", "f4", "i8", "i4", "?")}
    scalar: Any = multiarray.scalar
    allowed = [
        argparse.Namespace,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]
    with torch.serialization.safe_globals(allowed):
        yield


def _check_archive(path: Path) -> None:
    """Verify names and checksums of a zip archive; PyTorch itself does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                place = PurePosixPath(member.filename.replace("\\", "/"))
                if place.is_absolute() or ".." in place.parts:
                    raise ValueError(
                        f"{path} holds a file whose path leaves the archive: {member.filename!r}"
                    )
            names = [member.filename for member in archive.infolist()]
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise ValueError(f"{path} holds these twice: {', '.join(twice)}")
            # All zero: written with torch.serialization.set_crc32_options(False).
            has_checksums = any(member.CRC for member in archive.infolist())
            broken = archive.testzip() if has_checksums else None
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged or truncated ({_first_line(error)}).") from error
    if broken:
        raise ValueError(f"{path} is damaged: the checksum of {broken!r} inside is wrong.")


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    code = re.search(
        r"(?:[Uu]nsupported (?:global: )?GLOBAL|but got) ([\w.]+|<class '[\w.]+'>)", text
    )
    if code or "Trying to call reduce" in text:
        named = f" ({code[1]})" if code else ""
        return (
            f"{path} is refused: its pickle holds code{named}, which was not run. Weights need "
            "none; ask whoever made the file for a plain state_dict or for safetensors."
        )
    if "Unsupported operand" in text:
        return (
            f"{path} is refused: it is damaged, or a pickle that may hold code and that PyTorch "
            f"does not read as data ({_reason(text)}). Nothing in it was run."
        )
    if isinstance(error, MemoryError):
        return f"{path} needs more memory than there is, or is damaged"
    return (
        f"{path} is no intact PyTorch file: truncated, damaged or another format ({_reason(text)})"
    )


def _reason(text: str) -> str:
    """Return the part of PyTorch's message that says what is wrong; the rest is advice."""
    text = text.rsplit("WeightsUnpickler error:", 1)[-1]
    return _first_line(text)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _without_torch(value: Any, torch: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _stored(value, torch)
    if isinstance(value, Mapping):
        return {key: _without_torch(item, torch) for key, item in value.items()}
    return value


def _stored(tensor: Any, torch: Any) -> StoredArray:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        dtype = f"{dtype} ({str(tensor.layout).removeprefix('torch.')})"
    elif tensor.device.type != "cpu":
        dtype = f"{dtype} without values ({tensor.device})"

    def read() -> np.ndarray:
        plain = tensor.detach()
        # NumPy has no bfloat16 of its own; float32 holds it exactly.
        return (plain.float() if dtype == "bfloat16" else plain).numpy()

    return StoredArray(tuple(tensor.shape), dtype, read)
