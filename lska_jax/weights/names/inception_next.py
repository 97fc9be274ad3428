"""The checkpoints of InceptionNeXt: names, layouts, and what their shapes say.

timm's names are the authors' own.
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.inception_next_config import FAMILY
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import (
    BATCH_NORM,
    CONV,
    CONV_1X1,
    MATRIX,
    NORM,
    VECTOR,
    Layout,
    Row,
    Shape,
)
from lska_jax.weights.names.shapes import axis, block_counts, ratio_of_stage, usual_axis


def _in_block(path: str, leaves: Mapping[str, tuple[str, Layout]], name: str) -> Row:
    return Row(f"stages/{{s}}/blocks/{{b}}/{path}", leaves, (f"stages.{{s}}.blocks.{{b}}.{name}",))


_ROWS = [
    Row("stem/projection", CONV, ("stem.0",)),
    Row("stem/norm", BATCH_NORM, ("stem.1",)),
    _in_block("scale", {"scale": ("", VECTOR)}, "gamma"),
    _in_block("mixer/square", CONV, "token_mixer.dwconv_hw"),
    _in_block("mixer/horizontal", CONV, "token_mixer.dwconv_w"),
    _in_block("mixer/vertical", CONV, "token_mixer.dwconv_h"),
    _in_block("norm", BATCH_NORM, "norm"),
    _in_block("mlp/expand", CONV_1X1, "mlp.fc1"),
    _in_block("mlp/project", CONV_1X1, "mlp.fc2"),
    # Transition i leads to stage i + 1, with which it is counted there.
    Row("transitions/{s}/norm", BATCH_NORM, ("stages.{S}.downsample.0",)),
    Row("transitions/{s}/projection", CONV, ("stages.{S}.downsample.1",)),
    Row("hidden", MATRIX, ("head.fc1",)),
    Row("norm", NORM, ("head.norm",)),
    Row("classifier", MATRIX, ("head.fc2",)),
]


class InceptionNeXtNames(Names):
    """InceptionNeXt's checkpoints, whose shapes show every size."""

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read every size off a checkpoint; None where shapes do not show it."""
        by_path, naming = self.by_path(shapes)
        depths = block_counts(by_path)
        dims = tuple(
            usual_axis(by_path, f"stages/{stage}/", "/scale", 0) for stage in range(len(depths))
        )
        branch = usual_axis(by_path, "stages/0/", "/mixer/square/kernel", 0)
        stem = self.family.stem
        fields: dict[str, Any] = {
            "dims": dims,
            "depths": depths,
            "mlp_ratios": tuple(
                ratio_of_stage(by_path, stage, "/mlp/expand/kernel", channels)
                for stage, channels in enumerate(dims)
            ),
            "band_size": usual_axis(by_path, "stages/", "/mixer/horizontal/kernel", 3),
            "branch_divisor": dims[0] // branch if branch and dims and dims[0] else None,
            "patch_size": axis(by_path, stem, 2),
            "in_channels": axis(by_path, stem, 1),
            "num_classes": axis(by_path, self.family.head[0], 0)
            or axis(by_path, self.family.head[1], 0)
            or 0,
        }
        return Inferred(fields, naming)


NAMES = InceptionNeXtNames(FAMILY, namings=("timm",), rows={"": _ROWS})
