"""``create_model``: a named or pretrained model, with any part of its config replaced."""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx

from lska_jax.models.build import build
from lska_jax.models.table import (
    COMPUTE_FIELDS,
    Family,
    families,
    family_of,
    model_entry,
    plain,
)
from lska_jax.weights.hub import find_model_folder
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.pretrained import adapt_arrays, build_from_arrays


def create_model(
    name: str | None = None,
    *,
    pretrained: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    rngs: nnx.Rngs | None = None,
    **config: Any,
) -> Any:
    """Build a named model with freshly initialised parameters, or a pretrained one.

    Args:
      name: one of ``list_models()``, for example "van_lska_tiny"; with ``pretrained`` it may be
        left out, and is checked otherwise.
      pretrained: a model folder, or the Hub id of one ("org/name", "hf-hub:org/name@revision").
        Its SHA-256 is verified.
      num_classes: size of the logits; 0 makes the model return pooled features. None is 1000, or
        that of the pretrained weights; another number than theirs gets a fresh head.
      in_channels: channels of the images; None is 3, or that of the pretrained weights. Weights
        for RGB are adapted to another number: summed for one, repeated and scaled for several.
      rngs: source of the initial parameters; None is ``nnx.Rngs(0)``.
      **config: any other field of the family's config, None leaving its default: ``dtype`` and
        ``drop_path_rate`` of all, for VAN also k (23), dilation, drop_rate, stem_stride, remat,
        implementation, or dims, depths and ffn_ratios of a size of your own.

    Returns:
      A model in training mode, as ``nnx`` builds it; call ``model.eval()`` for inference. Its
      ``preprocessing`` says how images have to be prepared.

    Raises:
      ValueError: an unknown name (the closest is suggested), an invalid k or config value, or
        pretrained weights that are damaged or of another architecture.
      TypeError: a field that the family does not have, or neither a name nor ``pretrained``.
      FileNotFoundError: ``pretrained`` is neither a model folder nor a Hub id.
      ImportError: a Hub id, and huggingface_hub is not installed.
      ConnectionError: the Hub cannot be reached; the message says what to download by hand.
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    given = plain({key: value for key, value in config.items() if value is not None})
    if isinstance(pretrained, bool):
        raise ValueError("pretrained takes a model folder or a Hub id; there is no default one.")
    if pretrained is not None:
        return _pretrained(pretrained, name, given, num_classes, in_channels, rngs)
    if name is None:
        raise TypeError("create_model needs a name of list_models(), pretrained=..., or both.")
    entry = model_entry(name)
    family = families()[entry.family]
    _check_arguments(family, given, fixed=entry.fields)
    shapes = {"num_classes": num_classes, "in_channels": in_channels}
    asked = {field: value for field, value in shapes.items() if value is not None}
    model = build(family.config(**{**entry.fields, **asked, **given}), rngs=rngs)
    model.preprocessing = entry.preprocessing.for_channels(model.config.in_channels)
    return model


def _check_arguments(family: Family, given: dict[str, Any], *, fixed: Any) -> None:
    words = {field for field, value in fixed.items() if isinstance(value, str)}
    allowed = set(family.defaults) - words
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise TypeError(
            f"create_model has no argument {', '.join(unknown)} for {family.name}; allowed: "
            f"{', '.join(sorted(allowed))}, pretrained, rngs."
        )


def _pretrained(
    pretrained: str | Path,
    name: str | None,
    given: dict[str, Any],
    num_classes: int | None,
    in_channels: int | None,
    rngs: nnx.Rngs,
) -> Any:
    located = find_model_folder(pretrained)
    facts, arrays = read_model_folder(located.folder, root=located.root)
    family = family_of(facts.config)
    _check_arguments(family, given, fixed={})
    _check_same_architecture(facts, name, given, pretrained)
    config = dataclasses.replace(
        facts.config,
        num_classes=facts.config.num_classes if num_classes is None else num_classes,
        in_channels=facts.config.in_channels if in_channels is None else in_channels,
        **{field: value for field, value in given.items() if field in _free_fields(family)},
    )
    adapted = adapt_arrays(
        arrays, family, num_classes=config.num_classes, in_channels=config.in_channels
    )
    model = build_from_arrays(config, adapted, rngs=rngs)
    model.preprocessing = facts.preprocessing.for_channels(config.in_channels)
    return model


def _free_fields(family: Family) -> frozenset[str]:
    """Return what a pretrained model may be given besides its config; the rest decides arrays."""
    return COMPUTE_FIELDS | set(family.unseen)


def _check_same_architecture(
    facts: ModelFacts, name: str | None, given: dict[str, Any], pretrained: str | Path
) -> None:
    family = family_of(facts.config)
    entry = None if name is None else model_entry(name)
    different = []
    if entry is not None and entry.family != family.name:
        different.append(f"{name} is of {entry.family}, the weights are of {family.name}")
    else:
        wanted = {**(entry.fields if entry else {}), **given}
        fixed = {field: v for field, v in wanted.items() if field not in _free_fields(family)}
        # Compared as configs: some fields can be given in more than one way.
        asked = dataclasses.replace(facts.config, **fixed)
        different += [
            f"{field}: asked for {value}, the weights have {getattr(facts.config, field)}"
            for field, value in fixed.items()
            if getattr(asked, field) != getattr(facts.config, field)
        ]
    if different:
        raise ValueError(
            f"The weights in {pretrained} are of another architecture:\n  "
            + "\n  ".join(different)
            + "\nLeave these arguments out. For another k, or LSKA in place of LKA, first run "
            "lska-jax transfer."
        )
