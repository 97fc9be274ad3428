"""What a model folder's config.json says: architecture, preprocessing, class names, origin."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lska_jax.models.checks import is_count, is_number, least_side
from lska_jax.models.heads import HeadConfig, family_with_head, head_config, head_section
from lska_jax.models.table import Family, Preprocessing, families, family_of, named_model, plain

FORMAT = "lska_jax model folder"
# Version 1 had no hash of config.json itself.
FORMAT_VERSION = 2
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
HASH_KEY = "sha256"
INTERPOLATIONS = ("bicubic", "bilinear")
CROP_MODES = ("center", "squash", "whole")
# Far beyond what there is, and near enough to be refused at once.
_LARGEST_DEPTH = 2_000
_LARGEST_COUNT = 1_000_000
_LARGEST_SIDE = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model folder says about its model.

    Attributes:
      config: of any family; drop rates and compute choices are defaults.
      preprocessing: of the images.
      class_names: in label order, or None where they are not known.
      is_multi_label: whether an image may have any number of the classes: the logits are then those
        of a sigmoid each, not of a softmax.
      class_colors: red, green and blue from 0 to 255 of each class, to draw it; None where the
        model says nothing that is drawn.
      license: of the weights, an SPDX name or "unknown".
      source: where the weights come from, any JSON values.
    """

    config: Any
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    is_multi_label: bool = False
    class_colors: tuple[tuple[int, int, int], ...] | None = None
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


def facts_to_json(facts: ModelFacts, *, sha256: str, size: int, dtype: str = "float32") -> bytes:
    """Return what config.json holds, given the hash, size and dtype of the weights' file."""
    family, config = family_of(facts.config), facts.config
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "family": family.name,
        "model": facts.name,
        "architecture": {n: _as_json(getattr(config, n)) for n in family.architecture_fields},
        "preprocessing": _without_unused(facts.preprocessing),
        "labels": facts.class_names,
        # Absent where it is not so, as in folders of before.
        **({"multi_label": True} if facts.is_multi_label else {}),
        **({} if facts.class_colors is None else {"colors": facts.class_colors}),
        "license": facts.license,
        "source": dict(facts.source),
        "weights": {
            **{"file": WEIGHTS_NAME, "sha256": sha256, "bytes": size},
            # Absent where it is float32, as in folders of before.
            **({} if dtype == "float32" else {"dtype": dtype}),
        },
    }
    return seal(record)


def _as_json(value: Any) -> Any:
    return head_section(value) if isinstance(value, HeadConfig) else value


def _without_unused(prepared: Preprocessing) -> dict[str, Any]:
    """Return a preprocessing without what most have none of, as files of before have it."""
    return {name: v for name, v in prepared._asdict().items() if name != "long_side" or v}


def seal(record: Mapping[str, Any]) -> bytes:
    """Return config.json's bytes for a record: the record and its SHA-256."""
    rest = {name: value for name, value in record.items() if name != HASH_KEY}
    return canonical({**rest, HASH_KEY: hashlib.sha256(canonical(rest)).hexdigest()})


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return a record as config.json's bytes: the form that is hashed, and the only one read."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # Names of files need not be text; what is none becomes an escape of JSON.
    return text.encode("utf-8", "backslashreplace")


def check_record(record: Mapping[str, Any], data: bytes, path: Path) -> None:
    """Check version and hash of a config.json.

    Args:
      record: what it holds.
      data: its bytes.
      path: where it is.

    Raises:
      ValueError: an unknown version, or other bytes than were written.
    """
    version = record.get("format_version")
    if version not in (1, FORMAT_VERSION) or isinstance(version, bool):
        raise ValueError(
            f"{path} has format version {version!r}; this version of lska_jax reads 1 and "
            f"{FORMAT_VERSION}."
        )
    if version == 1 and HASH_KEY not in record:
        return
    if seal(record) != data:
        raise ValueError(
            f"{path} is not the file that was written: the {HASH_KEY} in it is not that of its "
            "content, or its lines are not as they were. Fetch the folder again; to change what it "
            "says, import or publish the model again."
        )


def facts_from_json(
    record: Mapping[str, Any], folder: Path, *, name: str = CONFIG_NAME
) -> ModelFacts:
    """Return the facts that a config.json states.

    Args:
      record: what it holds.
      folder: where it is.
      name: of the file, where another states the same.

    Raises:
      ValueError: something is missing, of the wrong type, or fits no network.
    """
    path = folder / name
    try:
        config = _read_config(record)
        # Folders of before 0.2 lack the first, and most the second.
        given = {"crop_mode": "center", "long_side": 0, **record["preprocessing"]}
        prepared = plain({n: given[n] for n in Preprocessing._fields})
        names = record.get("labels")
        if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
            raise ValueError("labels must be texts.")
        facts = ModelFacts(
            config=config,
            preprocessing=Preprocessing(**prepared),
            class_names=None if names is None else tuple(names),
            is_multi_label=record.get("multi_label") is True,
            class_colors=plain(record).get("colors"),
            license=str(record.get("license", "unknown")),
            source=dict(record.get("source") or {}),
        )
        check_facts(facts)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]!r}.") from error
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts


def _read_config(record: Mapping[str, Any]) -> Any:
    family = _read_family(record)
    fields = plain({name: record["architecture"][name] for name in family.architecture_fields})
    if "head" in fields:
        fields["head"] = head_config(fields["head"])
    if problems := family.check({**family.defaults, **fields}) or _check_sizes(_flat(fields)):
        raise ValueError(" ".join(problems))
    return family.config(**fields)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    head = fields.get("head")
    return {**fields, **({} if head is None else vars(head))}


def _check_sizes(fields: Mapping[str, Any]) -> list[str]:
    """Return which fields no network has that was ever written: building one would take for ever.

    Families check what makes a network; these are the bounds of a file that may be damaged.
    """
    problems = []
    for name, value in fields.items():
        counts = [
            v for v in (value if isinstance(value, tuple) else (value,)) if is_count(v, low=0)
        ]
        most = _LARGEST_SIDE if name == "image_size" else _LARGEST_COUNT
        most = _LARGEST_DEPTH if "depth" in name else most
        if sum(counts) > most:
            problems.append(f"{name}={value} is more than {most}.")
        if name.endswith("epsilon") and not 1e-15 <= value <= 1e-2:
            problems.append(f"{name}={value} must be from 1e-15 to 0.01.")
    return problems


def _read_family(record: Mapping[str, Any]) -> Family:
    # Folders of the time when there was one family do not name it.
    name = record.get("family", "van")
    if name not in families():
        raise ValueError(
            f"its family {name!r} is unknown here; allowed: {', '.join(families())}. A newer "
            "version of lska_jax may know it."
        )
    head = record["architecture"].get("head")
    family: Family = family_with_head(families()[name], head) if head else families()[name]
    return family


def check_facts(facts: ModelFacts) -> None:
    """Check preprocessing and class names against the architecture.

    Raises:
      ValueError: one does not fit, with what is allowed.
    """
    prepared, config = facts.preprocessing, facts.config
    for name in ("mean", "std"):
        values = getattr(prepared, name)
        low, high = (-1e3, 1e3) if name == "mean" else (1e-6, 1e3)
        if (
            not isinstance(values, tuple)
            or len(values) != config.in_channels
            or not all(is_number(v) and low <= v <= high for v in values)
        ):
            raise ValueError(
                f"preprocessing {name} must be {config.in_channels} numbers from {low:g} to "
                f"{high:g}, one a channel, got {values!r}."
            )
    size = prepared.image_size
    if not is_count(size, low=1) or size > _LARGEST_SIDE:
        raise ValueError(f"image_size must be from 1 to {_LARGEST_SIDE}, got {size!r}.")
    multiple = family_of(config).image_multiple(vars(config))
    if size % multiple:
        raise ValueError(f"image_size must be a multiple of {multiple}, got {size}.")
    if size < (least := least_side(config)):
        raise ValueError(f"image_size must be at least {least}, got {size}.")
    crop = prepared.crop_pct
    if not is_number(crop) or not size / _LARGEST_SIDE <= crop <= size:
        raise ValueError(f"crop_pct must be a fraction such as 0.9, got {crop!r}.")
    if prepared.interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}, got {prepared.interpolation!r}."
        )
    if prepared.crop_mode not in CROP_MODES:
        raise ValueError(f"crop_mode must be one of {CROP_MODES}, got {prepared.crop_mode!r}.")
    long_side, is_whole = prepared.long_side, prepared.crop_mode == "whole"
    least_long, most_long = (size, _LARGEST_SIDE) if is_whole else (0, 0)
    if not is_count(long_side, low=least_long) or long_side > most_long:
        raise ValueError(f"long_side must be from {least_long} to {most_long}, got {long_side!r}.")
    _check_colors(facts.class_colors, config.num_classes)
    names = facts.class_names
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{len(names)} labels for {config.num_classes} classes.")


def _check_colors(colors: Any, num_classes: int) -> None:
    if colors is None:
        return
    is_right = isinstance(colors, tuple) and all(
        isinstance(color, tuple)
        and len(color) == 3
        and all(is_count(level, low=0) and level <= 255 for level in color)
        for color in colors
    )
    if not is_right or len(colors) != num_classes:
        raise ValueError(
            f"colors must be red, green and blue from 0 to 255 for each of {num_classes} classes."
        )
