"""The checkpoints of PVT v2: names, layouts, and what their shapes say.

The namings are

- ``timm``;
- ``original``: the authors' code, with VAN's own names outside the attention;
- ``hugging_face``: PVT v2 in transformers, whose files keep keys and values apart.
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.pvt_v2_config import FAMILY, SIZES, PVTv2Config
from lska_jax.models.table import ModelEntry
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import CONV, MATRIX, NORM, Layout, Row, Shape
from lska_jax.weights.names.shapes import axis, block_counts, ratio_of_stage, usual_axis

NAMINGS = ("timm", "original", "hugging_face")
_HF_STAGE = "pvt_v2.encoder.layers.{s}."


def _in_block(
    path: str,
    leaves: Mapping[str, tuple[str, Layout]],
    name: str,
    hugging_face: str | tuple[str, ...],
    *,
    original: str = "",
) -> Row:
    """Return a row of a block; the authors mostly call it what timm does."""
    hf_block = _HF_STAGE + "blocks.{b}."
    parts = (hugging_face,) if isinstance(hugging_face, str) else hugging_face
    return Row(
        "stages/{s}/blocks/{b}/" + path,
        leaves,
        (
            "stages.{s}.blocks.{b}." + name,
            "block{S}.{b}." + (original or name),
            tuple(hf_block + part for part in parts),
        ),
    )


def _embedding(stage: str, timm: str) -> list[Row]:
    """Return the rows of the patch embedding of a stage, or of all of them."""
    path, number = f"stages/{stage}/patch_embedding/", "1" if stage == "0" else "{S}"
    hugging_face = f"pvt_v2.encoder.layers.{stage}.patch_embedding."
    return [
        Row(
            path + ours,
            leaves,
            (timm + name, f"patch_embed{number}.{name}", hugging_face + their_name),
        )
        for ours, leaves, name, their_name in (
            ("projection", CONV, "proj", "proj"),
            ("norm", NORM, "norm", "layer_norm"),
        )
    ]


def _rows() -> list[Row]:
    """Return the whole table, in the order of timm's state_dict."""
    attention = "attention/reduction/"
    key_value = ("attention.key", "attention.value")
    return [
        # The first is timm's stem, the others begin their stages; ahead of them, so that it counts.
        *_embedding("0", "patch_embed."),
        *_embedding("{s}", "stages.{s}.downsample."),
        _in_block("norm_1", NORM, "norm1", "layer_norm_1"),
        _in_block("attention/query", MATRIX, "attn.q", "attention.query"),
        _in_block("attention/key_value", MATRIX, "attn.kv", key_value),
        _in_block("attention/project", MATRIX, "attn.proj", "attention.proj"),
        _in_block(attention + "projection", CONV, "attn.sr", "attention.spatial_reduction"),
        _in_block(attention + "norm", NORM, "attn.norm", "attention.layer_norm"),
        _in_block("norm_2", NORM, "norm2", "layer_norm_2"),
        _in_block("ffn/expand", MATRIX, "mlp.fc1", "mlp.dense1"),
        _in_block(
            "ffn/depthwise",
            CONV,
            "mlp.dwconv",
            "mlp.dwconv.dwconv",
            original="mlp.dwconv.dwconv",
        ),
        _in_block("ffn/project", MATRIX, "mlp.fc2", "mlp.dense2"),
        Row("stages/{s}/norm", NORM, ("stages.{s}.norm", "norm{S}", _HF_STAGE + "layer_norm")),
        Row("classifier", MATRIX, ("head", "head", "classifier")),
    ]


class PVTv2Names(Names):
    """PVT v2's checkpoints, whose shapes show every size but the heads."""

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read every size off a checkpoint; None or 0 where shapes do not show it."""
        by_path, naming = self.by_path(shapes)
        depths = block_counts(by_path)
        dims = tuple(_channels(by_path, stage) for stage in range(len(depths)))
        sides = [
            usual_axis(by_path, f"stages/{stage}/", "/attention/reduction/projection/kernel", 2)
            for stage in range(len(depths))
        ]
        fields: dict[str, Any] = {
            "dims": dims,
            "depths": depths,
            "ffn_ratios": tuple(
                ratio_of_stage(by_path, stage, "/ffn/expand/kernel", channels)
                for stage, channels in enumerate(dims)
            ),
            "reductions": tuple(side or 1 for side in sides),
            # A reduction by patches of one pixel is none: the 1x1 is that of linear attention.
            "is_linear": 1 in sides,
            "in_channels": axis(by_path, self.family.stem, 1),
            "num_classes": axis(by_path, self.family.head[0], 0)
            or axis(by_path, self.family.head[1], 0)
            or 0,
        }
        return Inferred(fields, naming)

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> PVTv2Config:
        """Return the config that a file has to fit: what was asked for, completed by its shapes."""
        fields = self.complete(inferred.fields, entry=entry, given=given)
        if entry is None and "heads" not in given:
            fields["heads"] = _usual_heads(fields)
        return PVTv2Config(**fields)

    def export_notes(self, naming: str, config: PVTv2Config) -> list[str]:
        """Return what no array shows: the stride of the first convolution."""
        if config.stem_stride == 4:
            return []
        return [
            f"The stride of the first convolution is {config.stem_stride}, the {naming} code has "
            "4: set it there."
        ]


def _usual_heads(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the heads of the named models with such shapes, which show none."""
    for size in SIZES.values():
        named = size._asdict()
        if all(fields[name] == value for name, value in named.items() if name != "heads"):
            return size.heads
    raise ValueError(
        f"It holds a network of dims={fields['dims']}, depths={fields['depths']}, "
        f"ffn_ratios={fields['ffn_ratios']}, reductions={fields['reductions']}, "
        f"is_linear={fields['is_linear']}, which is none of {', '.join(FAMILY.models)}; its arrays "
        "do not show the heads of its attentions. Pass one number for each stage, such as "
        "--field heads=(1,2,5,8)."
    )


def _channels(by_path: Mapping[str, Shape], stage: int) -> int | None:
    places = ("patch_embedding/projection/kernel", "patch_embedding/norm/scale", "norm/scale")
    found = (axis(by_path, f"stages/{stage}/{place}", 0) for place in places)
    return next((channels for channels in found if channels), None)


NAMES = PVTv2Names(
    FAMILY,
    namings=NAMINGS,
    rows={"": _rows()},
    # transformers' model without a classifier has no "pvt_v2." in front.
    aliases={"encoder.layers.": "pvt_v2.encoder.layers."},
)
