"""The checkpoints of the Swin Transformer: names, layouts, and what their shapes say.

The namings are

- ``timm``;
- ``original``: the authors' code; a stage's patch merging belongs to the stage before;
- ``hugging_face``: Swin in transformers, whose query, key and value are stored apart.
"""

import math
from collections.abc import Mapping
from typing import Any

from lska_jax.models.swin_config import FAMILY, SwinConfig
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import CONV, MATRIX, NORM, Layout, Row, Shape
from lska_jax.weights.names.shapes import axis, block_counts, usual_axis

NAMINGS = ("timm", "original", "hugging_face")

_BLOCK = "layers.{s}.blocks.{b}."
_HF_BLOCK = "swin.encoder." + _BLOCK
_HF_ATTENTION = _HF_BLOCK + "attention.self."
_WITHOUT_BIAS = {"kernel": MATRIX["kernel"]}
_TABLE = {"bias_table": ("relative_position_bias_table", Layout((0, 1)))}


def _in_block(
    path: str,
    leaves: Mapping[str, tuple[str, Layout]],
    name: str,
    hugging_face: str | tuple[str, ...],
) -> Row:
    """Return a row of a block, which the original calls as timm does."""
    return Row("stages/{s}/blocks/{b}/" + path, leaves, (_BLOCK + name,) * 2 + (hugging_face,))


def _in_merging(path: str, leaves: Mapping[str, tuple[str, Layout]]) -> Row:
    """Return a row of a patch merging."""
    here, before = f"layers.{{s}}.downsample.{path}", f"layers.{{P}}.downsample.{path}"
    return Row("stages/{s}/merging/" + path, leaves, (here, before, "swin.encoder." + before))


_ROWS = [
    Row(
        "patch_embedding/projection",
        CONV,
        (
            "patch_embed.proj",
            "patch_embed.proj",
            "swin.embeddings.patch_embeddings.projection",
        ),
    ),
    Row(
        "patch_embedding/norm",
        NORM,
        ("patch_embed.norm", "patch_embed.norm", "swin.embeddings.norm"),
    ),
    _in_merging("norm", NORM),
    _in_merging("reduction", _WITHOUT_BIAS),
    _in_block("norm_1", NORM, "norm1", _HF_BLOCK + "layernorm_before"),
    _in_block("attention", _TABLE, "attn", _HF_BLOCK + "attention.self"),
    _in_block(
        "attention/qkv",
        MATRIX,
        "attn.qkv",
        tuple(_HF_ATTENTION + part for part in ("query", "key", "value")),
    ),
    _in_block("attention/project", MATRIX, "attn.proj", _HF_BLOCK + "attention.output.dense"),
    _in_block("norm_2", NORM, "norm2", _HF_BLOCK + "layernorm_after"),
    _in_block("mlp/expand", MATRIX, "mlp.fc1", _HF_BLOCK + "intermediate.dense"),
    _in_block("mlp/project", MATRIX, "mlp.fc2", _HF_BLOCK + "output.dense"),
    Row("norm", NORM, ("norm", "norm", "swin.layernorm")),
    Row("classifier", MATRIX, ("head.fc", "head", "classifier")),
]


class SwinNames(Names):
    """Swin's checkpoints, whose shapes show every size."""

    def by_path(self, shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], str]:
        """Return shapes by our paths, those of patch merging aside, and the naming of most names.

        A merging's name belongs to another stage in another naming; the first stage has one in the
        original's alone.
        """
        by_path, naming = super().by_path(shapes)
        if any(name.startswith("layers.0.downsample.") for name in shapes):
            naming = "original"
        return {path: s for path, s in by_path.items() if "/merging/" not in path}, naming

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read every size off a checkpoint; None where shapes do not show it."""
        by_path, naming = self.by_path(shapes)

        depths = block_counts(by_path)
        stages = [f"stages/{stage}/blocks/" for stage in range(len(depths))]
        distances = usual_axis(by_path, "stages/0/", "/bias_table", 0)
        fields: dict[str, Any] = {
            "dims": tuple(usual_axis(by_path, stage, "/norm_1/scale", 0) for stage in stages),
            "depths": depths,
            "heads": tuple(usual_axis(by_path, stage, "/bias_table", 1) for stage in stages),
            "window": distances and (math.isqrt(distances) + 1) // 2,
            "patch_size": axis(by_path, "patch_embedding/projection/kernel", 2),
            "in_channels": axis(by_path, "patch_embedding/projection/kernel", 1),
            "num_classes": axis(by_path, "classifier/kernel", 0)
            or axis(by_path, "classifier/bias", 0)
            or 0,
        }
        return Inferred(fields, naming)

    def export_notes(self, naming: str, config: SwinConfig) -> list[str]:
        """Return what no array shows: the images that the windows are laid out for."""
        if config.image_size == self.family.defaults["image_size"]:
            return []
        return [
            f"The windows are laid out for images of {config.image_size} pixels, which no array "
            f"shows: set it in the {naming} code, and here with --field "
            f"image_size={config.image_size}."
        ]


NAMES = SwinNames(
    FAMILY,
    namings=NAMINGS,
    rows={"": _ROWS},
    # transformers' model without a classifier has no "swin." in front.
    aliases={
        "embeddings.": "swin.embeddings.",
        "encoder.layers.": "swin.encoder.layers.",
        "layernorm.": "swin.layernorm.",
    },
    # Constants of the windows, which the original and transformers keep in their files.
    ignored=("relative_position_index", "attn_mask"),
)
