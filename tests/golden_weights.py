"""Weights and images that are derived from their names, as the golden outputs were made with."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the standard normal float32 array that belongs to a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the golden value of one entry of a reference state_dict, in PyTorch layout."""
    if name.endswith("num_batches_tracked"):
        return np.array(1)
    n = normal(name, shape)
    if name.endswith("running_var"):
        return np.exp(0.2 * n)
    if name.endswith("running_mean"):
        return 0.2 * n
    if "layer_scal" in name:
        return 0.2 + 0.05 * n
    if name.endswith("bias"):
        return 0.1 * n
    if len(shape) == 1:
        return 1 + 0.1 * n
    return n / np.float32(math.sqrt(math.prod(shape[1:])))


def images(batch: int, height: int, width: int) -> np.ndarray:
    """Return the golden input, (B, H, W, 3) normalised."""
    return normal(f"input/{batch}x{height}x{width}", (batch, height, width, 3))


def keys(model: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a reference state_dict."""
    listed = json.loads((GOLDEN / f"{model}.keys.json").read_text())
    return {name: tuple(shape) for name, shape in listed.items()}
