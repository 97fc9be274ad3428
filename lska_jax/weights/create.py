"""``create_model``: a named or pretrained model, with any part of its config replaced."""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx

from lska_jax.models.table import model_entry
from lska_jax.models.van import VAN, VANConfig
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, default_dilation
from lska_jax.weights.hub import find_model_folder
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.pretrained import adapt_arrays, build_from_arrays

# What a pretrained model may be given besides its own config; the rest decides its arrays.
_FREE_FIELDS = frozenset(
    {"drop_rate", "drop_path_rate", "dtype", "remat", "implementation"}
    | {"stem_stride", "layer_norm_epsilon"}
)


def create_model(
    name: str | None = None,
    *,
    pretrained: str | Path | None = None,
    k: int | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    rngs: nnx.Rngs | None = None,
    **config: Any,
) -> VAN:
    """Build a named model with freshly initialised parameters, or a pretrained one.

    Args:
      name: one of ``list_models()``, for example "van_lska_tiny"; with ``pretrained`` it may be
        left out, and is checked otherwise.
      pretrained: a model folder, or the Hub id of one ("org/name", "hf-hub:org/name@revision").
        Its SHA-256 is verified.
      k: extent of the large kernel; None is 23, or that of the pretrained weights.
      num_classes: size of the logits; 0 makes the model return pooled features. None is 1000, or
        that of the pretrained weights; another number than theirs gets a fresh head.
      in_channels: channels of the images; None is 3, or that of the pretrained weights. Weights
        for RGB are adapted to another number: summed for one, repeated and scaled for several.
      rngs: source of the initial parameters; None is ``nnx.Rngs(0)``.
      **config: any other field of ``VANConfig``: dilation, drop_rate, drop_path_rate, dtype,
        stem_stride, remat, implementation, or dims, depths and ffn_ratios of a size of your own.

    Returns:
      A model in training mode, as ``nnx`` builds it; call ``model.eval()`` for inference. Its
      ``preprocessing`` says how images have to be prepared.

    Raises:
      ValueError: an unknown name (the closest is suggested), an invalid k or config value, or
        pretrained weights that are damaged or of another architecture.
      TypeError: a field that ``VANConfig`` does not have, or neither a name nor ``pretrained``.
      FileNotFoundError: ``pretrained`` is neither a model folder nor a Hub id.
      ImportError: a Hub id, and huggingface_hub is not installed.
      ConnectionError: the Hub cannot be reached; the message says what to download by hand.
    """
    allowed = {field.name for field in dataclasses.fields(VANConfig)} - {"attention"}
    unknown = sorted(set(config) - allowed)
    if unknown:
        raise TypeError(
            f"create_model has no argument {', '.join(unknown)}; allowed: "
            f"{', '.join(sorted(allowed))}, pretrained, rngs."
        )
    rngs = nnx.Rngs(0) if rngs is None else rngs
    # Tuples hash, lists do not, and the config is part of the module's static structure.
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    named = {} if name is None else _named_fields(name)
    if isinstance(pretrained, bool):
        raise ValueError("pretrained takes a model folder or a Hub id; there is no default one.")
    if pretrained is not None:
        wanted = {**named, **given} | ({} if k is None else {"k": k})
        return _pretrained(pretrained, wanted, num_classes, in_channels, rngs)
    if name is None:
        raise TypeError("create_model needs a name of list_models(), pretrained=..., or both.")
    sizes = {
        "k": DEFAULT_KERNEL_SIZE if k is None else k,
        "num_classes": 1000 if num_classes is None else num_classes,
        "in_channels": 3 if in_channels is None else in_channels,
    }
    return VAN(VANConfig(**{**named, **sizes, **given}), rngs=rngs)


def _named_fields(name: str) -> dict[str, Any]:
    entry = model_entry(name)
    return {"attention": entry.attention, **entry.size._asdict()}


def _pretrained(
    pretrained: str | Path,
    wanted: dict[str, Any],
    num_classes: int | None,
    in_channels: int | None,
    rngs: nnx.Rngs,
) -> VAN:
    located = find_model_folder(pretrained)
    facts, arrays = read_model_folder(located.folder, root=located.root)
    _check_same_architecture(facts, wanted, pretrained)
    free = {field: value for field, value in wanted.items() if field in _FREE_FIELDS}
    config = dataclasses.replace(
        facts.config,
        num_classes=facts.config.num_classes if num_classes is None else num_classes,
        in_channels=facts.config.in_channels if in_channels is None else in_channels,
        **free,
    )
    adapted = adapt_arrays(arrays, num_classes=config.num_classes, in_channels=config.in_channels)
    model = build_from_arrays(config, adapted, rngs=rngs)
    model.preprocessing = facts.preprocessing.for_channels(config.in_channels)
    return model


def _check_same_architecture(
    facts: ModelFacts, wanted: dict[str, Any], pretrained: str | Path
) -> None:
    have = {field: getattr(facts.config, field) for field in wanted}
    if "dilation" in wanted and not facts.config.attention.endswith("_trivial"):
        # None is the usual dilation, also where it is asked for by its number.
        usual = default_dilation(facts.config.k)
        have["dilation"] = have["dilation"] or usual
        wanted = {**wanted, "dilation": wanted["dilation"] or usual}
    different = [
        f"{field}: asked for {value}, the weights have {have[field]}"
        for field, value in wanted.items()
        if field not in _FREE_FIELDS and value != have[field]
    ]
    if different:
        raise ValueError(
            f"The weights in {pretrained} are of another architecture:\n  "
            + "\n  ".join(different)
            + "\nLeave these arguments away. Another k or LSKA in place of LKA: first python -m "
            "lska_jax.weights.transfer."
        )
