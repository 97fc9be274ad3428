"""The checkpoints of ViT, DeiT and DeiT-III: names, layouts, and what their shapes say.

The namings are

- ``timm``: timm's VisionTransformer, and the code of DeiT that it comes from;
- ``original``: the code of DeiT-III, whose layer scale has other names; otherwise the same;
- ``hugging_face``: ViT in transformers, DeiT there if it is distilled; no DeiT-III.

The variant of a network is its kind. Shapes show neither ViT from DeiT, whose weights want
different images, nor the heads: a named model says both.
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.table import ModelEntry
from lska_jax.models.vit_config import FAMILY, KINDS, PREPROCESSINGS, ViTConfig
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import CONV, MATRIX, NORM, VECTOR, Layout, Row, Shape

NAMINGS = ("timm", "original", "hugging_face")

_BLOCK = "blocks/{b}/"
_TIMM_BLOCK = "blocks.{b}."


def _rows(kind: str) -> list[Row]:
    prefix = "deit." if kind == "deit_distilled" else "vit."
    embeddings, block = f"{prefix}embeddings.", f"{prefix}encoder.layer.{{b}}."
    attention = f"{block}attention.attention."
    qkv = (f"{attention}query", f"{attention}key", f"{attention}value")
    is_distilled, has_scale = kind == "deit_distilled", kind == "deit3"

    def row(path: str, leaves: Any, name: str, hugging_face: Any) -> Row:
        return Row(path, leaves, (name, name, None if has_scale else hugging_face))

    def in_block(path: str, leaves: Any, name: str, hugging_face: Any) -> Row:
        return row(_BLOCK + path, leaves, _TIMM_BLOCK + name, hugging_face)

    def scale(number: int) -> list[Row]:
        if not has_scale:
            return []
        timm, original = (_TIMM_BLOCK + n for n in (f"ls{number}.gamma", f"gamma_{number}"))
        return [Row(f"{_BLOCK}scale_{number}", {"scale": ("", VECTOR)}, (timm, original, None))]

    def token(leaf: str, name: str, hugging_face: str) -> Row:
        # (1, 1, C) in PyTorch
        return row("", {leaf: ("", Layout((0, 1, 2), ones=2))}, name, embeddings + hugging_face)

    positions = {"positions": ("", Layout((0, 1, 2), ones=1))}
    classifier = "cls_classifier" if is_distilled else "classifier"
    distillation = [
        token("distillation_token", "dist_token", "distillation_token"),
        row("distillation_classifier", MATRIX, "head_dist", "distillation_classifier"),
    ]
    return [
        token("class_token", "cls_token", "cls_token"),
        row("", positions, "pos_embed", f"{embeddings}position_embeddings"),
        *(distillation[:1] if is_distilled else []),
        row(
            "patch_embedding",
            CONV,
            "patch_embed.proj",
            f"{embeddings}patch_embeddings.projection",
        ),
        in_block("norm_1", NORM, "norm1", f"{block}layernorm_before"),
        in_block("attention/qkv", MATRIX, "attn.qkv", qkv),
        in_block("attention/project", MATRIX, "attn.proj", f"{block}attention.output.dense"),
        *scale(1),
        in_block("norm_2", NORM, "norm2", f"{block}layernorm_after"),
        in_block("mlp/expand", MATRIX, "mlp.fc1", f"{block}intermediate.dense"),
        in_block("mlp/project", MATRIX, "mlp.fc2", f"{block}output.dense"),
        *scale(2),
        row("norm", NORM, "norm", f"{prefix}layernorm"),
        row("classifier", MATRIX, "head", classifier),
        *(distillation[1:] if is_distilled else []),
    ]


class ViTNames(Names):
    """ViT's checkpoints, whose shapes show all but the heads and whose images they want."""

    def variant_of(self, config: ViTConfig) -> str:
        """Return the kind."""
        return config.kind

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read the network off a checkpoint; None where names and shapes do not show it.

        ``kinds``, which is no field, are those that the file may be of.
        """
        by_path, naming = self.by_path(shapes)
        stem = by_path.get("patch_embedding/kernel", ())
        dim, in_channels, patch_size = stem[:3] if len(stem) == 4 else (None, None, None)
        if "distillation_token" in by_path:
            kinds: tuple[str, ...] = ("deit_distilled",)
        elif any("/scale_" in path for path in by_path):
            kinds = ("deit3",)
        else:
            kinds = ("vit", "deit")
        blocks = [path.split("/") for path in by_path if path.startswith("blocks/")]
        head = by_path.get("classifier/kernel") or by_path.get("classifier/bias")
        fields = {
            "kind": kinds[0] if len(kinds) == 1 else None,
            "kinds": kinds,
            "dim": dim,
            "depth": len({place[1] for place in blocks}) or None,
            "mlp_ratio": _mlp_ratio(by_path, dim),
            "patch_size": patch_size,
            "position_grid": _position_grid(by_path, kinds[0]),
            "in_channels": in_channels,
            "num_classes": head[0] if head else 0,
        }
        return Inferred(fields, naming)

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> ViTConfig:
        """Return the config that a file has to fit: what was asked for, completed by its shapes.

        Patch size and positions, classes and channels are those of the file, whatever the model.
        """
        shown = {name: v for name, v in inferred.fields.items() if v is not None}
        kinds = shown.pop("kinds")
        if entry is not None:
            return ViTConfig(**{**shown, **entry.fields, **given})
        unclear = [n for n in ("dim", "depth", "mlp_ratio", "position_grid") if n not in shown]
        if unclear:
            raise ValueError(
                f"The file does not show the network's {', '.join(unclear)}: arrays are missing or "
                "have impossible shapes. Pass --model to see every one listed."
            )
        found = {**shown, **given}
        fitting = {
            name: fields
            for name, fields in self.family.models.items()
            if fields["kind"] in kinds
            and all(found.get(field, value) == value for field, value in fields.items())
            and found["mlp_ratio"] == self.family.defaults["mlp_ratio"]
        }
        if len(fitting) > 1:
            raise ValueError(
                f"Its arrays are those of {' and '.join(fitting)}: one network, whose weights want "
                "images prepared differently. Pass --model with the one that they are of."
            )
        if not fitting:
            network = ", ".join(f"{n}={found[n]}" for n in ("dim", "depth", "mlp_ratio"))
            raise ValueError(
                f"Its arrays are those of a {' or '.join(kinds)} of {network}, which is no named "
                f"model; there are {', '.join(self.family.models)}. Its heads do not show: "
                "name a model with --model, and how it differs with --field dim=D, --field depth=N "
                "and --field heads=H."
            )
        (fields,) = fitting.values()
        return ViTConfig(**{**found, **fields, **given})

    def usual_preprocessing(self, naming: str, config: ViTConfig) -> tuple[str, str]:
        """Return the preprocessing of the kind: ViT's and DeiT's differ."""
        del naming
        choice = "vit" if config.kind == "vit" else "deit"
        prepared = self.preprocessings[choice]
        return choice, (
            f"Preprocessing: that of {choice}, mean {prepared.mean}, std {prepared.std}, crop "
            f"{prepared.crop_pct:g} at {prepared.image_size}."
        )

    def import_notes(self, naming: str, config: ViTConfig) -> list[str]:
        """Return at which image size such positions were trained, if it is not the usual."""
        del naming
        side, usual = config.position_grid, self.family.defaults["position_grid"]
        if side == usual:
            return []
        return [
            f"Positions of {side}x{side} patches: the network was trained at "
            f"{side * config.patch_size} pixels. The preprocessing says otherwise; its image_size "
            "and crop_pct are in config.json."
        ]


def _mlp_ratio(by_path: Mapping[str, Shape], dim: int | None) -> int | None:
    hidden = by_path.get("blocks/0/mlp/expand/kernel", ())
    return hidden[0] // dim if hidden and dim and not hidden[0] % dim else None


def _position_grid(by_path: Mapping[str, Shape], kind: str) -> int | None:
    stored = by_path.get("positions", ())
    if len(stored) != 3:
        return None
    patches = stored[1] - {"deit_distilled": 2, "deit3": 0}.get(kind, 1)
    side = round(max(patches, 0) ** 0.5)
    return side if side and side**2 == patches else None


NAMES = ViTNames(
    FAMILY,
    namings=NAMINGS,
    rows={kind: _rows(kind) for kind in KINDS},
    # transformers' models without a classifier have no prefix in front, and another pooling.
    aliases={
        "embeddings.": "vit.embeddings.",
        "encoder.layer.": "vit.encoder.layer.",
        "layernorm.": "vit.layernorm.",
    },
    ignored=("pooler.dense.weight", "pooler.dense.bias"),
    preprocessings={kind: PREPROCESSINGS[kind] for kind in ("deit", "vit")},
)
