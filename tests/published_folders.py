"""Model folders as other libraries publish them, written by hand around the toy family."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.weights.safetensors_file import save_safetensors

PREPARED = {
    **{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "image_size": 16, "crop_pct": 0.9},
    **{"interpolation": "bicubic", "crop_mode": "center"},
}
_ROW = {"license": "mit", "num_classes": 1000, "preprocessing": PREPARED}
TOY_TAGS: dict[str, dict[str, dict[str, Any]]] = {
    "toy_small": {
        "plain": {**_ROW, "hub": "org/toy.plain"},
        "squashed": {
            **_ROW,
            "hub": "org/toy.squashed",
            "preprocessing": {**PREPARED, "crop_pct": 1.0, "crop_mode": "squash"},
        },
        "large": {**_ROW, "hub": "org/toy.large", "num_classes": 21841},
    }
}


def toy_state_dict(classes: int = 1000, *, width: int = 8) -> dict[str, np.ndarray]:
    """Return PyTorch arrays of a toy."""
    rng = np.random.default_rng(0)
    shapes = {
        **{"conv.weight": (width, 3, 3, 3), "conv.bias": (width,)},
        **{"fc.weight": (classes, width), "fc.bias": (classes,)},
    }
    return {name: rng.standard_normal(s, dtype=np.float32) for name, s in shapes.items()}


def timm_config(classes: int = 1000, **prepared: Any) -> dict[str, Any]:
    """Return timm's config.json of a toy."""
    return {
        "architecture": "toy_small",
        "num_classes": classes,
        "num_features": 8,
        "pretrained_cfg": {
            **{"tag": "plain", "input_size": [3, 16, 16], "interpolation": "bilinear"},
            **{"crop_pct": 0.875, "crop_mode": "center", "mean": [0.1, 0.2, 0.3]},
            **{"std": [0.4, 0.5, 0.6], "num_classes": classes, "fixed_input_size": False},
            **prepared,
        },
    }


def timm_folder(folder: Path, *, classes: int = 1000, **prepared: Any) -> Path:
    """Write a folder as timm publishes them."""
    folder.mkdir()
    write_json(folder / "config.json", timm_config(classes, **prepared))
    weights = toy_state_dict(classes)
    save_safetensors(folder / "model.safetensors", weights, metadata={"format": "pt"})
    return folder


def write_json(path: Path, record: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(record))


ODD_VALUES = (None, True, -1, 10**400, float("nan"), "", "x", [], {}, [1], [None], {"a": 1})


def with_odd_values(record: Any) -> Iterator[Any]:
    """Yield a JSON record with each of its entries, at any depth, as each odd value."""
    yield from ODD_VALUES
    entries: Any = record.items() if isinstance(record, dict) else ()
    if isinstance(record, list):
        entries = enumerate(record)
    for place, entry in entries:
        for odd in with_odd_values(entry):
            changed = record.copy()
            changed[place] = odd
            yield changed
