"""Model folders as transformers publishes them: ``model_type`` in config.json.

Images are described in preprocessor_config.json. The image processors differ in what a size means:
ConvNeXt's resizes the short side to size / crop_pct, and from 384 on squashes; those of ViT, DeiT,
Swin and PVT squash to height x width, and DeiT's cuts out the centre afterwards (read off
transformers 5.24.0).
"""

from collections.abc import Mapping
from typing import Any

from lska_jax.models.checks import is_count, is_number
from lska_jax.models.table import Preprocessing, families
from lska_jax.weights.stated import (
    Stated,
    channel_values,
    crop_fraction,
    ordered_names,
    square_side,
    whole_numbers,
)

PREPROCESSOR_NAME = "preprocessor_config.json"
# Pillow's numbers of its filters.
_FILTERS = {2: "bilinear", 3: "bicubic"}
# ConvNeXt's processor: below it the short side is resized and the centre cut out.
_SQUASHED_FROM = 384
# What each image processor takes for what its file leaves out.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ConvNext": {"resample": 3, "crop_pct": 224 / 256},
    "DeiT": {"resample": 3, "do_center_crop": True, "crop_size": 224, "size": 256},
    "Pvt": {"resample": 3},
    "ViT": {"resample": 2},
}
_PROCESSORS = {
    **{"convnext": "ConvNext", "van": "ConvNext", "deit": "DeiT", "pvt_v2": "Pvt"},
    **{"swin": "ViT", "vit": "ViT"},
}
_FAMILIES = {
    **{"convnext": "convnext", "vit": "vit", "deit": "vit", "swin": "swin"},
    **{"pvt_v2": "pvt_v2", "van": "van"},
}


def is_transformers(record: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is transformers'."""
    return isinstance(record.get("model_type"), str) and "format" not in record


def read_transformers(record: Mapping[str, Any], processor: Mapping[str, Any] | None) -> Stated:
    """Return what transformers' config.json and preprocessor_config.json state.

    Args:
      record: config.json.
      processor: preprocessor_config.json, or None where there is none.

    Raises:
      ValueError: a model that this package does not have, or a preprocessing that is not taken.
    """
    kind: str = record["model_type"]
    family = _FAMILIES.get(kind)
    if family not in families():
        raise ValueError(
            f"its model_type is {kind!r}; allowed: "
            f"{', '.join(k for k, f in _FAMILIES.items() if f in families())}."
        )
    activation = record.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(f"its hidden_act is {activation!r}; {family} has 'gelu' here.")
    return Stated(
        layout="transformers",
        family=family,
        model=None,
        is_resized=False,
        fields=_unseen_fields(record, family),
        # One network under two names, which want their images prepared differently.
        words={"kind": kind} if family == "vit" else {},
        num_classes=None,
        preprocessing=None if processor is None else _preprocessing(processor, kind),
        class_names=_class_names(record),
        license="unknown",
        source={"architecture": _architecture(record)},
    )


def _architecture(record: Mapping[str, Any]) -> str:
    names = record.get("architectures")
    return ", ".join(map(str, names)) if isinstance(names, list) else str(record["model_type"])


def _unseen_fields(record: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return fields of the family's config that no array shows and that config.json states."""
    known = families()[family].defaults
    fields: dict[str, Any] = {}
    for name in ("num_attention_heads", "num_heads"):
        if "heads" in known and record.get(name) is not None:
            fields["heads"] = whole_numbers(name, record[name])
    if "image_size" in known and record.get("image_size") is not None:
        fields["image_size"] = _windowed_side(record)
    epsilon = record.get("layer_norm_eps")
    if "layer_norm_epsilon" in known and epsilon is not None:
        if not is_number(epsilon) or not 0 < epsilon < 1:
            raise ValueError(f"layer_norm_eps={epsilon!r} must be above 0 and below 1.")
        fields["layer_norm_epsilon"] = float(epsilon)
    return fields


def _windowed_side(record: Mapping[str, Any]) -> int:
    """Return the side of the images that Swin's windows are laid out for.

    Where a map is no whole number of windows, transformers' network is one of its own: logits are
    off by a tenth at 256 pixels and windows of 7.
    """
    side = square_side("image_size", record["image_size"])
    window, patch = (record.get(n) or usual for n, usual in (("window_size", 7), ("patch_size", 4)))
    depths = record.get("depths")
    stages = len(depths) if isinstance(depths, list) else 4
    if not is_count(window, low=1) or not is_count(patch, low=1):
        raise ValueError(f"window_size={window!r} and patch_size={patch!r} must be whole numbers.")
    maps = [side // (patch * 2**stage) for stage in range(stages)]
    if any(pixels < 1 or pixels % window for pixels in maps):
        raise ValueError(
            f"its image_size is {side}, where maps of {', '.join(map(str, maps))} pixels are no "
            f"whole windows of {window}; transformers computes something else there. Import the "
            "weights alone: lska-jax import FILE --weights TAG --out DIR."
        )
    return side


def _class_names(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = ordered_names(record.get("id2label"))
    if names and all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None
    return names


def _preprocessing(stated: Mapping[str, Any], model_type: str) -> Preprocessing:
    named = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
    kind = next((k for k in _DEFAULTS if named.startswith(k)), named or _PROCESSORS[model_type])
    given = {name: value for name, value in stated.items() if value is not None}
    processor = {**_DEFAULTS.get(kind, {}), **given}
    switches = ("do_resize", "do_normalize", "do_rescale")
    if off := [name for name in switches if not processor.get(name, True)]:
        raise ValueError(f"{PREPROCESSOR_NAME} has {', '.join(off)} off, which is not taken.")
    factor = processor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(255 * factor - 1) > 1e-6:
        raise ValueError(f"{PREPROCESSOR_NAME} has rescale_factor={factor!r}; 1 / 255 is taken.")
    resample = processor.get("resample")
    if not isinstance(resample, int) or resample not in _FILTERS:
        raise ValueError(
            f"{PREPROCESSOR_NAME} has resample={resample!r}; allowed: 2 (bilinear), 3 (bicubic)."
        )
    lacking = [key for key in ("image_mean", "image_std", "size") if key not in processor]
    if lacking:
        raise ValueError(f"{PREPROCESSOR_NAME} does not state {', '.join(lacking)}.")
    size, crop_pct, crop_mode = _geometry(processor, is_convnext=kind == "ConvNext")
    return Preprocessing(
        mean=channel_values("image_mean", processor["image_mean"]),
        std=channel_values("image_std", processor["image_std"]),
        image_size=size,
        crop_pct=crop_pct,
        interpolation=_FILTERS[resample],
        crop_mode=crop_mode,
    )


def _geometry(processor: Mapping[str, Any], *, is_convnext: bool) -> tuple[int, float, str]:
    """Return image size, crop_pct and crop mode."""
    stated = processor["size"]
    short = stated.get("shortest_edge") if isinstance(stated, Mapping) else None
    if is_convnext:
        size = square_side("size", stated if short is None else short)
        if size >= _SQUASHED_FROM:
            return size, 1.0, "squash"
        crop = processor["crop_pct"]
        if not is_number(crop) or not 0.1 <= crop <= 1:
            raise ValueError(f"{PREPROCESSOR_NAME} has crop_pct={crop!r}, no fraction.")
        return size, crop_fraction(size, int(size / crop)), "center"
    resized = square_side("size", stated if short is None else short)
    if not processor.get("do_center_crop", False):
        if short is not None:
            raise ValueError(
                f"{PREPROCESSOR_NAME} resizes the short side and cuts nothing out; square images "
                "are taken only."
            )
        return resized, 1.0, "squash"
    size = square_side("crop_size", processor.get("crop_size", resized))
    return size, crop_fraction(size, resized), "squash" if short is None else "center"
