"""Model folders as timm publishes them: ``architecture`` and ``pretrained_cfg`` in config.json.

The format is that of timm 1.0 (``save_for_hf``), and the older one whose preprocessing stands in
config.json itself.
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.table import Preprocessing, families, model_entry
from lska_jax.models.weight_tags import weights_of
from lska_jax.weights.class_names import readable_names
from lska_jax.weights.stated import (
    Stated,
    channel_values,
    ordered_names,
    square_side,
    whole_numbers,
)

# Arguments of timm's models that change nothing in evaluation, or that arrays show.
_HARMLESS = {
    *{"pretrained", "num_classes", "in_chans", "img_size", "dynamic_img_size", "strict_img_size"},
    *{"drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate"},
    *{"patch_drop_rate", "init_values", "ls_init_value", "head_init_scale", "weight_init"},
}
_SHOWN = {
    *{"depths", "dims", "embed_dim", "embed_dims", "depth", "mlp_ratio", "mlp_ratios"},
    *{"patch_size", "window_size", "num_heads", "sr_ratios", "linear", "class_token"},
}
# Fields of configs that timm calls otherwise and that no array shows in every family.
_UNSEEN = {"num_heads": "heads"}
_USUAL_POOLING = {"vit": "token"}


def is_timm(record: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is timm's."""
    return isinstance(record.get("architecture"), str) and "format" not in record


def read_timm(record: Mapping[str, Any]) -> Stated:
    """Return what timm's config.json states.

    Raises:
      ValueError: another architecture than this package has, arguments that it does not have, or
        a preprocessing that is incomplete or not taken.
    """
    name: str = record["architecture"]
    entry = model_entry(name)
    prepared = record.get("pretrained_cfg", record)
    if not isinstance(prepared, Mapping):
        raise ValueError("its pretrained_cfg is no object.")
    arguments = record.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise ValueError("its model_args are no object.")
    given = _check_arguments(arguments, record, entry.family)
    tag = str(prepared.get("tag") or "")
    known = weights_of(name).get(tag)
    default = known.license if known else "unknown"
    return Stated(
        layout="timm",
        family=entry.family,
        model=name,
        is_resized=not _SHOWN.isdisjoint(arguments),
        fields=given,
        words={},
        num_classes=record.get("num_classes", prepared.get("num_classes")),
        preprocessing=_preprocessing(prepared),
        class_names=_class_names(record, prepared),
        license=str(prepared.get("license") or default),
        source={"architecture": name, **({"tag": f"{name}.{tag}"} if tag else {})},
    )


def _check_arguments(
    arguments: Mapping[str, Any], record: Mapping[str, Any], family: str
) -> dict[str, Any]:
    """Return the fields that arguments of timm's model stand for, having refused all others."""
    usual = _USUAL_POOLING.get(family, "avg")
    for pooling in (arguments.get("global_pool"), record.get("global_pool")):
        if pooling not in (None, "", usual):
            raise ValueError(f"its global_pool is {pooling!r}; {family} has {usual!r} here.")
    unknown = sorted(arguments.keys() - _HARMLESS - _SHOWN - {"global_pool"})
    if unknown:
        raise ValueError(
            f"its model_args have {', '.join(unknown)}, which this package does not have; it has "
            f"{', '.join(sorted(_HARMLESS | _SHOWN))}."
        )
    size = arguments.get("img_size")
    if family == "swin" and size is not None and square_side("img_size", size) != 224:
        raise ValueError(
            f"its img_size is {size}, for which timm builds another network: other windows and "
            "masks. Networks of 224 are taken, whatever the size of their images."
        )
    config_fields = families()[family].defaults
    return {
        field: whole_numbers(argument, value)
        for argument, field in _UNSEEN.items()
        if field in config_fields and (value := arguments.get(argument)) is not None
    }


def _preprocessing(prepared: Mapping[str, Any]) -> Preprocessing:
    lacking = [key for key in ("mean", "std", "input_size") if key not in prepared]
    if lacking:
        raise ValueError(f"it does not state {', '.join(lacking)} of its images.")
    size = prepared["input_size"]
    if not isinstance(size, list) or len(size) != 3:
        raise ValueError(f"input_size={size!r} must be channels, height and width.")
    return Preprocessing(
        mean=channel_values("mean", prepared["mean"]),
        std=channel_values("std", prepared["std"]),
        image_size=square_side("input_size", size[1:]),
        crop_pct=prepared.get("crop_pct") or 0.875,
        interpolation=prepared.get("interpolation") or "bicubic",
        crop_mode=prepared.get("crop_mode") or "center",
    )


def _class_names(record: Mapping[str, Any], prepared: Mapping[str, Any]) -> tuple[str, ...] | None:
    if prepared.get("label_offset"):
        raise ValueError("its labels are shifted (label_offset), which is not taken.")
    places = ((record, "label_names"), (prepared, "label_names"), (prepared, "labels"))
    given = next((place[key] for place, key in places if place.get(key)), None)
    names = ordered_names(given)
    described = record.get("label_descriptions") or prepared.get("label_descriptions") or {}
    if names is None:
        return None
    if isinstance(described, Mapping) and all(isinstance(n, str) for n in described.values()):
        shown = tuple(described.get(name, name) for name in names)
        # Descriptions need not differ, and names have to.
        names = shown if len(set(shown)) == len(shown) else names
    return readable_names(names)
