"""The checkpoints of ConvNeXt: names, layouts, and what their shapes say.

The namings are

- ``timm``: that of timm, whose models are the named ones;
- ``original``: the authors' code;
- ``hugging_face``: transformers.
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.convnext_config import FAMILY, ConvNeXtConfig
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import CONV, MATRIX, NORM, VECTOR, Row, Shape
from lska_jax.weights.names.shapes import count, most_common

NAMINGS = ("timm", "original", "hugging_face")
_SCALE = {"scale": ("", VECTOR)}
_STAGES = "convnext.encoder.stages."
_AS_MANY_AS_CHANNELS = (
    "/scale",
    "/depthwise/kernel",
    "/depthwise/bias",
    "/norm/bias",
    "/project/bias",
)


def _in_block(path: str, leaves: Any, timm: str, original: str, hugging_face: str) -> Row:
    names = (
        f"stages.{{s}}.blocks.{{b}}.{timm}",
        f"stages.{{s}}.{{b}}.{original}",
        f"{_STAGES}{{s}}.layers.{{b}}.{hugging_face}",
    )
    return Row(f"stages/{{s}}/blocks/{{b}}/{path}", leaves, names)


# Transition i leads to stage i + 1, which is {S}, and all namings count it with that stage. The
# authors' code has the stem in its place 0, turned round: convolution first.
_ROWS = [
    Row(
        "stem/projection",
        CONV,
        ("stem.0", "downsample_layers.0.0", "convnext.embeddings.patch_embeddings"),
    ),
    Row(
        "stem/norm",
        NORM,
        ("stem.1", "downsample_layers.0.1", "convnext.embeddings.layernorm"),
    ),
    _in_block("scale", _SCALE, "gamma", "gamma", "layer_scale_parameter"),
    _in_block("depthwise", CONV, "conv_dw", "dwconv", "dwconv"),
    _in_block("norm", NORM, "norm", "norm", "layernorm"),
    _in_block("mlp/expand", MATRIX, "mlp.fc1", "pwconv1", "pwconv1"),
    _in_block("mlp/project", MATRIX, "mlp.fc2", "pwconv2", "pwconv2"),
    *(
        Row(
            f"transitions/{{s}}/{part}",
            leaves,
            (
                f"stages.{{S}}.downsample.{place}",
                f"downsample_layers.{{S}}.{place}",
                f"{_STAGES}{{S}}.downsampling_layer.{place}",
            ),
        )
        for place, (part, leaves) in enumerate((("norm", NORM), ("projection", CONV)))
    ),
    Row("norm", NORM, ("head.norm", "norm", "convnext.layernorm")),
    Row("classifier", MATRIX, ("head.fc", "head", "classifier")),
]


class ConvNeXtNames(Names):
    """ConvNeXt's checkpoints, whose shapes show every size."""

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read every size off a checkpoint; None where shapes do not show it."""
        by_path, naming = self.by_path(shapes)
        # (stage, block, channels) of everything in a block that has one entry, or kernel, a channel
        found = [
            (int(parts[1]), int(parts[3]), shape[0] if shape else 0)
            for path, shape in by_path.items()
            if path.startswith("stages/") and path.endswith(_AS_MANY_AS_CHANNELS)
            for parts in [path.split("/")]
        ]
        stages = range(count({stage for stage, _, _ in found}))
        stem = by_path.get(FAMILY.stem, ())
        head = next((by_path[path] for path in FAMILY.head if by_path.get(path)), (0,))
        fields = {
            "dims": tuple(most_common(c for s, _, c in found if s == stage) for stage in stages),
            "depths": tuple(count({b for s, b, _ in found if s == stage}) for stage in stages),
            "patch_size": stem[2] if len(stem) == 4 and stem[2] == stem[3] else None,
            "in_channels": stem[1] if len(stem) == 4 else None,
            "num_classes": head[0],
        }
        return Inferred(fields, naming)

    def import_notes(self, naming: str, config: ConvNeXtConfig) -> list[str]:
        """Return where transformers' code differs from that which the weights were trained with."""
        del config
        if naming != "hugging_face":
            return []
        return [
            "LayerNorm epsilon 1e-6 everywhere, the authors'; transformers has 1e-12 in the last."
        ]


NAMES = ConvNeXtNames(
    FAMILY,
    namings=NAMINGS,
    rows={"": _ROWS},
    # transformers' model without a classifier has no "convnext." in front.
    aliases={
        "embeddings.": "convnext.embeddings.",
        "encoder.stages.": _STAGES,
        "layernorm.": "convnext.layernorm.",
    },
)
