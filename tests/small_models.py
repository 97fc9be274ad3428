"""A small VAN, its golden-style state_dict, and files of it, for the tests of this folder."""

import functools
import re
from pathlib import Path

import golden_weights
import numpy as np
from flax import nnx

from lska_jax import VAN, VANConfig, create_model
from lska_jax.models.build import array_shapes
from lska_jax.weights.safetensors_file import save_safetensors
from lska_jax.weights.state_dict import name_arrays

CLASSES = 6
SMALL = {"dims": (4, 6), "depths": (1, 2), "ffn_ratios": (2, 2), "num_classes": CLASSES}


# One block: for what is compiled and would say nothing new of a second.
ONE_BLOCK = {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)}


def small_model(attention: str = "lska", *, rngs: nnx.Rngs | None = None, **config) -> VAN:
    """Return a model of the test's own; without ``rngs`` it is built once and copied."""
    if rngs is None:
        return nnx.clone(_built(attention, tuple(config.items())))
    return create_model(f"van_{attention}_tiny", rngs=rngs, **{**SMALL, **config})


@functools.cache
def _built(attention: str, config: tuple[tuple[str, object], ...]) -> VAN:
    return create_model(f"van_{attention}_tiny", **{**SMALL, **dict(config)})


def small_state_dict(attention: str = "lska", **config) -> dict[str, np.ndarray]:
    """Return reference names with values that belong to their names, all different."""
    van = VANConfig(attention=attention, **{**SMALL, **config})
    # Named without building a model: dozens of tests begin here.
    zeros = {path: np.zeros(shape, np.float32) for path, shape in array_shapes(van).items()}
    return {
        name: np.asarray(golden_weights.weight(name, array.shape), array.dtype)
        for name, array in name_arrays(van, zeros).items()
    }


def write_safetensors(path: Path, state_dict: dict[str, np.ndarray]) -> Path:
    save_safetensors(path, state_dict, metadata={"format": "pt"})
    return path


def detection_name(name: str) -> str:
    """Return a reference name as the detection copies have it, written out from the facts."""
    name = re.sub(r"^(patch_embed\d+)\.proj\.", r"\1.projection.", name)
    name = re.sub(r"^block(\d+)\.", r"blocks\1.", name)
    for ours, theirs in (
        ("conv0h", "DW_conv_h"),
        ("conv0v", "DW_conv_v"),
        ("conv_spatial_h", "DW_D_conv_h"),
        ("conv_spatial_v", "DW_D_conv_v"),
        ("mlp.dwconv.dwconv", "mlp.dwconv"),
    ):
        name = name.replace(ours, theirs)
    return name
