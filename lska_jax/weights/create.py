"""``create_model``: a named or pretrained model, with any part of its config replaced."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from lska_jax.models.build import build
from lska_jax.models.heads import family_with_head, head_config, head_of
from lska_jax.models.network import FeatureNetwork
from lska_jax.models.table import (
    COMPUTE_FIELDS,
    Family,
    families,
    family_of,
    model_entry,
    plain,
)
from lska_jax.models.weight_tags import (
    IMAGENET_CLASSES,
    WeightTag,
    default_weights,
    find_tag,
    list_tags,
    weight_tag,
    weights_of,
)
from lska_jax.nn.functional import assign
from lska_jax.running.compilation_cache import keep_in_running_process
from lska_jax.weights.hub import Located, find_model_folder, find_weights_folder
from lska_jax.weights.in_the_box import find_on_disk, list_box
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.pretrained import adapt_arrays, build_from_arrays, start_backbone


def create_model(
    name: str | None = None,
    *,
    pretrained: str | Path | bool | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    head: Any = None,
    features_only: bool = False,
    out_indices: Sequence[int] | int | None = None,
    global_pool: str | None = None,
    rngs: nnx.Rngs | None = None,
    compilation_cache: str | None = None,
    **config: Any,
) -> Any:
    """Build a named model with freshly initialised parameters, or a pretrained one.

    Args:
      name: one of ``list_models()``, for example "van_lska_tiny"; with ``pretrained`` it may be
        left out, and is checked otherwise.
      pretrained: True for the published weights of ``name``, or their tag ("fb_in1k", see
        ``models.weight_tags``); a model folder of this package, of timm or of transformers; the
        name of a model that comes with the package ("cifar10", "box:cifar10"); or the Hub id of a
        folder ("org/name", "hf-hub:org/name@revision"). The SHA-256 of our own folders is verified;
        the others have none.
      num_classes: size of the logits; 0 makes the model return pooled features. None is 1000, or
        that of the pretrained weights; another number than theirs gets a fresh head. It has to be
        given for published weights whose classes are not ImageNet's 1000.
      in_channels: channels of the images; None is 3, or that of the pretrained weights. Weights
        for RGB are adapted to another number: summed for one, repeated and scaled for several.
      head: puts a dense head on the model, "semantic_fpn" for example, by its name or as a
        dictionary of it and its fields (``models.heads.heads``). ``pretrained`` may be a classifier
        then, which the backbone starts from.
      features_only: return a ``FeatureNetwork``, whose call returns maps in place of logits.
      out_indices: places of those maps, or how many of the last ones; None is all of them.
      global_pool: with ``num_classes=0``, "" leaves features unpooled, as in timm; None is the
        family's pooling.
      rngs: source of the initial parameters; None is ``nnx.Rngs(0)``.
      compilation_cache: folder that keeps the programs compiled from here on, as train.py keeps
        its own; "off" leaves JAX's settings alone, and so does None where they already name a
        folder or keep nothing, else it is the usual one.
      **config: any other field of the family's config, None leaving its default: ``dtype``,
        ``drop_path_rate`` and ``remat`` of all, for VAN also k (23), dilation, drop_rate,
        stem_stride, implementation, or dims, depths and ffn_ratios of a size of your own; k,
        dilation and attention also as a tuple of one for each stage. ``remat`` saves memory on CPU
        only in FFNs with a convolution, without dropout and on one device.

    Returns:
      A model in training mode, as ``nnx`` builds it; call ``model.eval()`` for inference. Its
      ``preprocessing`` says how images have to be prepared.

    Raises:
      ValueError: an unknown name (the closest is suggested), an invalid k or config value, or
        pretrained weights that are damaged, of another architecture, or of unknown tag.
      TypeError: a field that the family does not have, or neither a name nor ``pretrained``.
      FileNotFoundError: ``pretrained`` is neither a model folder nor a Hub id, or its weights are
        not on the Hub; the message says where people get them.
      ImportError: a Hub id without huggingface_hub installed, or a PyTorch file without PyTorch.
      ConnectionError: the Hub cannot be reached; the message says what to download by hand.
    """
    if out_indices is not None and not features_only:
        raise TypeError("out_indices are of features_only=True; features() returns every map.")
    if features_only and (head is not None or global_pool is not None):
        raise TypeError("features_only returns a backbone's maps; leave out head and global_pool.")
    if head is not None and global_pool is not None:
        raise TypeError("global_pool is of classifiers; leave it out beside head.")
    if features_only:
        network = create_model(
            name,
            pretrained=pretrained,
            num_classes=0,
            in_channels=in_channels,
            rngs=rngs,
            compilation_cache=compilation_cache,
            **config,
        )
        return FeatureNetwork(network, out_indices)
    if global_pool is not None:
        if global_pool not in ("avg", "token", ""):
            raise ValueError(
                f"global_pool={global_pool!r} is none of 'avg', 'token', ''. Leave it out for the "
                "family's own."
            )
        model = create_model(
            name,
            pretrained=pretrained,
            num_classes=num_classes,
            in_channels=in_channels,
            rngs=rngs,
            compilation_cache=compilation_cache,
            **config,
        )
        model.choose_pooling(global_pool, num_classes=model.config.num_classes)
        return model
    keep_in_running_process(compilation_cache)
    rngs = nnx.Rngs(0) if rngs is None else rngs
    given = plain({key: value for key, value in config.items() if value is not None})
    if head is not None:
        given["head"] = head_config(head)
    if pretrained is not None and pretrained is not False:
        located = _locate(pretrained, name, num_classes)
        return _pretrained(located, name, given, num_classes, in_channels, rngs)
    if name is None:
        raise TypeError("create_model needs a name of list_models(), pretrained=..., or both.")
    entry = model_entry(name)
    family = families()[entry.family]
    if head is not None:
        family = family_with_head(family, given["head"])
    _check_arguments(family, given, fixed=entry.fields)
    shapes = {"num_classes": num_classes, "in_channels": in_channels}
    asked = {field: value for field, value in shapes.items() if value is not None}
    model = build(family.config(**{**entry.fields, **asked, **given}), rngs=rngs)
    if head is None:
        model.preprocessing = entry.preprocessing.for_channels(model.config.in_channels)
    return model


def _check_arguments(family: Family, given: dict[str, Any], *, fixed: Any) -> None:
    # Stage by stage a word may be given beside the name.
    words = {
        field
        for field, value in fixed.items()
        if isinstance(value, str)
        and not (field in family.per_stage and isinstance(given.get(field), tuple))
    }
    allowed = set(family.defaults) - words
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise TypeError(
            f"create_model has no argument {', '.join(unknown)} for {family.name}; allowed: "
            f"{', '.join(sorted(allowed))}, pretrained, rngs."
        )


def _locate(pretrained: str | Path | bool, name: str | None, num_classes: int | None) -> Located:
    """Return the folder of pretrained weights: on the disk, else of a tag, else of a Hub id."""
    text = str(pretrained)
    tag = None
    if pretrained is True:
        if name is None:
            raise TypeError("pretrained=True needs the name of a model.")
        tag = default_weights(model_entry(name).name)
        _say_default(tag)
    elif find_on_disk(text) is None:
        if name is not None and re.fullmatch(r"[A-Za-z0-9_]+", text):
            tag = _named_tag(model_entry(name).name, text)
        else:
            tag = find_tag(text)
    if tag is None:
        return find_model_folder(text)
    if num_classes is None and tag.num_classes != IMAGENET_CLASSES:
        kept = f"{tag.num_classes} to keep them, " if tag.num_classes else ""
        raise ValueError(
            f"The weights {tag.name} have {tag.num_classes or 'no'} classes, not ImageNet's "
            f"{IMAGENET_CLASSES}. Pass num_classes: {kept}0 for features, or the number of your "
            f"own for a fresh head. {list_tags(tag.model)}"
        )
    return find_weights_folder(tag)


def _named_tag(model: str, text: str) -> WeightTag:
    try:
        return weight_tag(model, text)
    except ValueError as error:
        raise ValueError(f"There is no folder {text}, and {error} {list_box()}") from None


def _say_default(tag: WeightTag) -> None:
    others = [other for other in weights_of(tag.model) if other != tag.tag]
    if others:
        print(
            f"{tag.model}: weights {tag.tag}, the default; pretrained= takes {', '.join(others)} "
            "as well.",
            file=sys.stderr,
        )


def _pretrained(
    located: Located,
    name: str | None,
    given: dict[str, Any],
    num_classes: int | None,
    in_channels: int | None,
    rngs: nnx.Rngs,
) -> Any:
    facts, arrays = read_model_folder(located)
    if "head" in given and head_of(facts.config) is None:
        return _on_backbone(facts, arrays, located, name, given, num_classes, in_channels, rngs)
    family = family_of(facts.config)
    _check_arguments(family, given, fixed={})
    _check_same_architecture(facts, name, given, located.folder)
    config = dataclasses.replace(
        facts.config,
        num_classes=facts.config.num_classes if num_classes is None else num_classes,
        in_channels=facts.config.in_channels if in_channels is None else in_channels,
        **{field: value for field, value in given.items() if field in _free_fields(family)},
    )
    model = build_from_arrays(config, adapt_arrays(arrays, config), rngs=rngs)
    model.preprocessing = facts.preprocessing.for_channels(config.in_channels)
    return model


def _on_backbone(
    facts: ModelFacts,
    arrays: dict[str, Any],
    located: Located,
    name: str | None,
    given: dict[str, Any],
    num_classes: int | None,
    in_channels: int | None,
    rngs: nnx.Rngs,
) -> Any:
    """Return a model with a fresh head on the backbone of a pretrained classifier."""
    own = {field: value for field, value in given.items() if field != "head"}
    _check_arguments(family_of(facts.config), own, fixed={})
    _check_same_architecture(facts, name, own, located.folder)
    family = family_with_head(family_of(facts.config), given["head"])
    asked = {"num_classes": num_classes, "in_channels": in_channels}
    usual = {n: v for n, v in family.defaults.items() if n in ("num_classes", "layer_norm_epsilon")}
    kept = {**vars(facts.config), **usual, **given}
    config = family.config(**{**kept, **{n: v for n, v in asked.items() if v is not None}})
    model = build(config, rngs=rngs)
    assign(model, start_backbone(arrays, config, where=str(located.folder)).arrays)
    return model


def _free_fields(family: Family) -> frozenset[str]:
    """Return what a pretrained model may be given besides its config; the rest decides arrays."""
    return COMPUTE_FIELDS | set(family.unseen)


def _check_same_architecture(
    facts: ModelFacts, name: str | None, given: dict[str, Any], folder: Path
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
            f"The weights in {folder} are of another architecture:\n  "
            + "\n  ".join(different)
            + "\nLeave these arguments out. For another k, or LSKA in place of LKA, first run "
            "lska-jax transfer."
        )
