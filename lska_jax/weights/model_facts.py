"""What a model folder's config.json says: architecture, preprocessing, class names, origin."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lska_jax.models.table import Preprocessing
from lska_jax.models.van import VANConfig
from lska_jax.weights.architecture import ARCHITECTURE_FIELDS, array_shapes, size_name

FORMAT = "lska_jax model folder"
FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model folder says about its model.

    Attributes:
      config: the architecture; drop rates and compute choices are defaults.
      preprocessing: of the images.
      class_names: in label order, or None where they are not known.
      license: of the weights, an SPDX name or "unknown".
      source: where the weights come from, any JSON values.
    """

    config: VANConfig
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    license: str = "unknown"
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The named model that this is, or None."""
        size = size_name(self.config)
        return f"van_{self.config.attention}_{size}" if size else None


def facts_to_json(facts: ModelFacts, *, sha256: str, size: int) -> dict[str, Any]:
    """Return what config.json holds, given the hash and size of the weights' file."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": facts.name,
        "architecture": {name: getattr(facts.config, name) for name in ARCHITECTURE_FIELDS},
        "preprocessing": facts.preprocessing._asdict(),
        "labels": facts.class_names,
        "license": facts.license,
        "source": dict(facts.source),
        "weights": {"file": WEIGHTS_NAME, "sha256": sha256, "bytes": size},
    }


def facts_from_json(record: Mapping[str, Any], folder: Path) -> ModelFacts:
    """Return the facts that a config.json states.

    Raises:
      ValueError: something is missing, of the wrong type, or fits no network.
    """
    path = folder / CONFIG_NAME
    try:
        fields = {name: _tuple(record["architecture"][name]) for name in ARCHITECTURE_FIELDS}
        _check_types(fields)
        prepared = {n: _tuple(record["preprocessing"][n]) for n in Preprocessing._fields}
        names = record.get("labels")
        if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
            raise ValueError("labels must be texts.")
        facts = ModelFacts(
            config=VANConfig(**fields),
            preprocessing=Preprocessing(**prepared),
            class_names=None if names is None else tuple(names),
            license=str(record.get("license", "unknown")),
            source=dict(record.get("source") or {}),
        )
        array_shapes(facts.config)
        check_facts(facts)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]!r}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_types(fields: Mapping[str, Any]) -> None:
    for name in ("dims", "depths", "ffn_ratios"):
        value = fields[name]
        if not isinstance(value, tuple) or not all(_is_count(number, low=1) for number in value):
            raise ValueError(f"{name} must be a list of positive numbers, got {value!r}.")
    for name in ("k", "num_classes", "in_channels", "stem_stride"):
        if not _is_count(fields[name], low=0):
            raise ValueError(f"{name} must be a whole number, got {fields[name]!r}.")
    if fields["dilation"] is not None and not _is_count(fields["dilation"], low=1):
        raise ValueError(f"dilation must be a whole number or null, got {fields['dilation']!r}.")
    if not _is_number(fields["layer_norm_epsilon"]):
        raise ValueError(
            f"layer_norm_epsilon must be a number, got {fields['layer_norm_epsilon']!r}."
        )


def check_facts(facts: ModelFacts) -> None:
    """Check preprocessing and class names against the architecture.

    Raises:
      ValueError: one does not fit, with what is allowed.
    """
    prepared, config = facts.preprocessing, facts.config
    for name in ("mean", "std"):
        values = getattr(prepared, name)
        if (
            not isinstance(values, tuple)
            or len(values) != config.in_channels
            or not all(_is_number(v) and (name == "mean" or v > 0) for v in values)
        ):
            raise ValueError(
                f"preprocessing {name} must be {config.in_channels} numbers"
                f"{'' if name == 'mean' else ' above 0'}, one a channel, got {values!r}."
            )
    if not _is_count(prepared.image_size, low=1):
        raise ValueError(f"image_size must be a positive number, got {prepared.image_size!r}.")
    if not _is_number(prepared.crop_pct) or not 0 < prepared.crop_pct <= prepared.image_size:
        raise ValueError(f"crop_pct must be a fraction such as 0.9, got {prepared.crop_pct!r}.")
    if prepared.interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}, got {prepared.interpolation!r}."
        )
    names = facts.class_names
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{len(names)} labels for {config.num_classes} classes.")


def _is_count(value: object, *, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
