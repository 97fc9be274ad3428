"""What a model folder's config.json says: architecture, preprocessing, class names, origin."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lska_jax.models.checks import is_count, is_number
from lska_jax.models.table import Family, Preprocessing, families, family_of, named_model, plain

FORMAT = "lska_jax model folder"
FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INTERPOLATIONS = ("bicubic", "bilinear")
CROP_MODES = ("center", "squash")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model folder says about its model.

    Attributes:
      config: of any family; drop rates and compute choices are defaults.
      preprocessing: of the images.
      class_names: in label order, or None where they are not known.
      license: of the weights, an SPDX name or "unknown".
      source: where the weights come from, any JSON values.
    """

    config: Any
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    license: str = "unknown"
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The named model that this is, or None."""
        return named_model(self.config)

    @property
    def description(self) -> str:
        """The model in a few words."""
        return family_of(self.config).describe(self.config)


def facts_to_json(facts: ModelFacts, *, sha256: str, size: int) -> dict[str, Any]:
    """Return what config.json holds, given the hash and size of the weights' file."""
    family = family_of(facts.config)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "family": family.name,
        "model": facts.name,
        "architecture": {name: getattr(facts.config, name) for name in family.architecture_fields},
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
        config = _read_config(record)
        given = {"crop_mode": "center", **record["preprocessing"]}  # folders of before 0.2 lack it
        prepared = plain({n: given[n] for n in Preprocessing._fields})
        names = record.get("labels")
        if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
            raise ValueError("labels must be texts.")
        facts = ModelFacts(
            config=config,
            preprocessing=Preprocessing(**prepared),
            class_names=None if names is None else tuple(names),
            license=str(record.get("license", "unknown")),
            source=dict(record.get("source") or {}),
        )
        check_facts(facts)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]!r}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts


def _read_config(record: Mapping[str, Any]) -> Any:
    family = _read_family(record)
    fields = plain({name: record["architecture"][name] for name in family.architecture_fields})
    if problems := family.check({**family.defaults, **fields}):
        raise ValueError(" ".join(problems))
    return family.config(**fields)


def _read_family(record: Mapping[str, Any]) -> Family:
    # Folders of the time when there was one family do not name it.
    name = record.get("family", "van")
    if name not in families():
        raise ValueError(
            f"its family {name!r} is unknown here; allowed: {', '.join(families())}. A newer "
            "version of lska_jax may know it."
        )
    return families()[name]


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
            or not all(is_number(v) and (name == "mean" or v > 0) for v in values)
        ):
            raise ValueError(
                f"preprocessing {name} must be {config.in_channels} numbers"
                f"{'' if name == 'mean' else ' above 0'}, one a channel, got {values!r}."
            )
    if not is_count(prepared.image_size, low=1):
        raise ValueError(f"image_size must be a positive number, got {prepared.image_size!r}.")
    if not is_number(prepared.crop_pct) or not 0 < prepared.crop_pct <= prepared.image_size:
        raise ValueError(f"crop_pct must be a fraction such as 0.9, got {prepared.crop_pct!r}.")
    if prepared.interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}, got {prepared.interpolation!r}."
        )
    if prepared.crop_mode not in CROP_MODES:
        raise ValueError(f"crop_mode must be one of {CROP_MODES}, got {prepared.crop_mode!r}.")
    names = facts.class_names
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{len(names)} labels for {config.num_classes} classes.")
