"""UniRepLKNet's checkpoints, as the official repository publishes them: branches not merged."""

from collections.abc import Mapping, Sequence
from typing import Any

from lska_jax.models.table import ModelEntry
from lska_jax.models.unireplknet_config import BRANCHES, FAMILY, LARGE_KERNEL, UniRepLKNetConfig
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

_KERNEL = {"kernel": CONV["kernel"]}
_ROW_OF_CHANNELS = Layout((0, 1, 2, 3), ones=3)
_BLOCK, _THEIRS = "stages/{s}/blocks/{b}/", "stages.{s}.{b}."
# Only the merged form has a bias there.
_MERGED_BIAS = "dwconv.lk_origin.bias"


def _branches() -> list[Row]:
    rows = []
    for place, (size, dilation) in enumerate(BRANCHES):
        conv, norm = f"dil_conv_k{size}_{dilation}", f"dil_bn_k{size}_{dilation}"
        if size == LARGE_KERNEL:
            conv, norm = "lk_origin", "origin_bn"
        here, there = f"{_BLOCK}mixer/branches/{place}/", f"{_THEIRS}dwconv."
        rows.append(Row(here + "conv", _KERNEL, (there + conv,)))
        rows.append(Row(here + "norm", BATCH_NORM, (there + norm,)))
    return rows


def _rows() -> list[Row]:
    def in_block(path: str, leaves: Mapping[str, tuple[str, Layout]], name: str) -> Row:
        return Row(_BLOCK + path, leaves, (_THEIRS + name,))

    vectors = {leaf: (leaf, _ROW_OF_CHANNELS) for leaf in ("gamma", "beta")}
    return [
        Row("stem/projection_1", CONV, ("downsample_layers.0.0",)),
        Row("stem/norm_1", NORM, ("downsample_layers.0.1",)),
        Row("stem/projection_2", CONV, ("downsample_layers.0.3",)),
        Row("stem/norm_2", NORM, ("downsample_layers.0.4",)),
        Row("transitions/{s}/projection", CONV, ("downsample_layers.{S}.0",)),
        Row("transitions/{s}/norm", NORM, ("downsample_layers.{S}.1",)),
        in_block("scale", {"scale": ("", VECTOR)}, "gamma"),
        *_branches(),
        in_block("mixer", _KERNEL, "dwconv"),
        in_block("norm", BATCH_NORM, "norm"),
        in_block("gate/down", CONV_1X1, "se.down"),
        in_block("gate/up", CONV_1X1, "se.up"),
        in_block("expand", MATRIX, "pwconv1.1"),
        in_block("response_norm", vectors, "act.1"),
        in_block("project", {"kernel": MATRIX["kernel"]}, "pwconv2.0"),
        in_block("project_norm", BATCH_NORM, "pwconv2.2"),
        Row("norm", NORM, ("norm",)),
        Row("classifier", MATRIX, ("head",)),
    ]


class UniRepLKNetNames(Names):
    """UniRepLKNet's checkpoints, whose names and shapes show the whole network."""

    def in_order(self, paths: Sequence[str], *, variant: str) -> list[str]:
        """Return paths in the reference's order: stem and transitions ahead of all stages."""
        by_stage = super().in_order(paths, variant=variant)
        return sorted(by_stage, key=lambda path: not path.startswith(("stem/", "transitions/")))

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read channels, blocks and which of them are large off a checkpoint."""
        by_path, naming = self.by_path(shapes)
        places = [path.split("/") for path in by_path if path.startswith("stages/")]
        blocks: dict[int, dict[int, bool]] = {}
        for _, stage, _, block, *rest in places:
            of_stage = blocks.setdefault(int(stage), {})
            of_stage[int(block)] = of_stage.get(int(block), False) or "branches" in rest
        norms = ("stem/norm_2/scale", *(f"transitions/{i}/norm/scale" for i in range(len(blocks))))
        stem, head = by_path.get(self.family.stem, ()), by_path.get(self.family.head[0], ())
        fields: dict[str, Any] = {
            "dims": tuple(by_path[norm][0] for norm in norms if by_path.get(norm)),
            "depths": tuple(len(blocks[stage]) for stage in sorted(blocks)),
            "large_every": tuple(_large_every(blocks[stage]) for stage in sorted(blocks)),
            "in_channels": stem[1] if len(stem) == 4 else None,
            "num_classes": head[0] if head else 0,
            "is_merged": any(name.endswith(_MERGED_BIAS) for name in shapes),
        }
        return Inferred(fields, naming)

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> UniRepLKNetConfig:
        """Return the config that a file has to fit: what was asked for, completed by its shapes."""
        if inferred.fields["is_merged"]:
            raise ValueError(
                "Its branches are merged, as for inference. Import the file that they were merged "
                "from, in the form that is trained and published; fold_batch_norm merges it here."
            )
        shown = {name: value for name, value in inferred.fields.items() if name != "is_merged"}
        # Of large_every 0 is a value too.
        every = shown.pop("large_every")
        fields = self.complete(shown, entry=entry, given=given)
        if entry is None and "large_every" not in given:
            if None in every:
                raise ValueError(
                    f"Its blocks of 13 x 13 follow no rule of the family. Pass --model, one of "
                    f"{', '.join(self.family.models)}, to see every array that differs."
                )
            fields["large_every"] = every
        return UniRepLKNetConfig(**fields)


def _large_every(is_large: Mapping[int, bool]) -> int | None:
    """Return every how many-th block is large, or None where they follow no such rule."""
    large = [block for block in sorted(is_large) if is_large[block]]
    if not large:
        return 0
    every = large[1] if len(large) > 1 else len(is_large)
    return every if large == list(range(0, len(is_large), every or 1)) else None


NAMES = UniRepLKNetNames(FAMILY, namings=("original",), rows={"": _rows()})
