"""Start a model from trained weights, for other classes or image sizes."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from lska_jax.models.heads import BACKBONE, backbone_config, head_of
from lska_jax.models.table import family_of
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.tasks.class_order import describe_difference, positions_in
from lska_jax.tasks.table import MASKED_IMAGES
from lska_jax.training.checkpoint.errors import CheckpointMismatch
from lska_jax.training.checkpoint.tree_difference import check_same_tree
from lska_jax.training.model_places import TrainedWeights, read_weights
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.pretrained import adapt_arrays, start_backbone


def load_for_finetuning(
    model: Any, path: str | Path, *, class_names: Sequence[str] | None = None
) -> str:
    """Write pretrained weights into a model, all of them but a head for other classes.

    Any image size works that the network takes. The head is kept at its fresh values where the
    classes are others, in number or by name, and only then; the same classes in another order are
    mapped. RGB weights that are no run's are adapted to other input channels. A network with a
    dense head takes its backbone from a classifier.

    Args:
      model: the model to start, freshly initialised.
      path: see ``lska_jax.training.model_places.read_model``.
      class_names: of the model's classes, in label order; None where they are no classes.

    Returns:
      What was loaded and what was not.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: what is there is damaged.
      CheckpointMismatch: anything but the size of the head differs; every difference is listed.
    """
    given, remark = read_weights(path), ""
    if head_of(model) and not any(name.startswith(f"{BACKBONE}/") for name in given.arrays):
        return _start_backbone(model, given)
    if given.facts:
        prepared = given.facts.preprocessing
        remark = f" They were trained with mean {prepared.mean}, std {prepared.std}."
        given = _adapt_to_channels(given, given.facts, model)
    arrays = given.arrays
    wanted = {**parameters(model), **batch_stats(model)}
    family_head = family_of(model).head
    head = [name for name in family_head if name in wanted]
    shared = [name for name in head if name in arrays]
    is_same_size = all(arrays[name].shape == wanted[name].shape for name in shared)
    is_fresh, remains = False, "head included"
    if class_names is not None and given.task == MASKED_IMAGES:
        is_fresh, remains = True, "with a fresh head: what was there painted masked patches"
    elif not shared or (not is_same_size and _differ_in_classes_only(arrays, wanted, family_head)):
        is_fresh, remains = True, "with a fresh head for other classes"
    elif is_same_size and class_names is not None:
        is_fresh, remains = _fit_head(arrays, shared, given.class_names, class_names)
    for name in head if is_fresh else ():
        arrays.pop(name, None)
        del wanted[name]
    check_same_tree(arrays, wanted, where=given.place)
    assign(model, {name: jnp.asarray(array) for name, array in arrays.items()})
    return f"Starting from {given.place}, {len(arrays)} arrays, {remains}.{remark}"


def _start_backbone(model: Any, given: TrainedWeights) -> str:
    """Write a classifier's weights into the backbone of a model with a head."""
    family = family_of(backbone_config(model.config))
    facts = given.facts
    if facts and type(facts.config) is not family.config:
        raise CheckpointMismatch(
            f"{given.place} holds {facts.description}, and the run's backbone is of the family "
            f"{family.name}. Start from a model of that family."
        )
    try:
        start = start_backbone(given.arrays, model.config, where=given.place)
    except ValueError as error:
        raise CheckpointMismatch(str(error)) from error
    assign(model, {name: jnp.asarray(array) for name, array in start.arrays.items()})
    prepared = "" if not facts else f" It was trained with mean {facts.preprocessing.mean}."
    parts = Counter(name.split("/")[0] for name in start.fresh)
    fresh = ", ".join(f"{part} ({count} arrays)" for part, count in parts.items())
    return (
        f"Starting from {given.place}: its backbone, {len(start.arrays)} arrays. Not taken: "
        f"{', '.join(start.left) or 'nothing'}. Fresh: {fresh}.{prepared}"
    )


def _fit_head(
    arrays: dict[str, Any],
    head: Sequence[str],
    given: Sequence[str] | None,
    wanted: Sequence[str],
) -> tuple[bool, str]:
    """Bring a head of the right size into the order of the wanted classes.

    Returns:
      Whether it is of other classes, and what is to be said of it.
    """
    if given is None:
        return False, "head included, its classes by position: the weights do not name them"
    positions = positions_in(wanted, given)
    if positions is None:
        difference = describe_difference(wanted, given, what="the data", other_what="the start")
        return True, f"with a fresh head for other classes: {difference}"
    if positions == sorted(positions):
        return False, "head included"
    if any(arrays[name].shape[-1] != len(positions) for name in head):
        # Of several outputs a class, or one besides the classes.
        return True, "with a fresh head: the same classes in another order"
    for name in head:
        arrays[name] = arrays[name][..., positions]
    return False, "head included, mapped to the data's order of the same classes"


def _adapt_to_channels(given: TrainedWeights, facts: ModelFacts, model: Any) -> TrainedWeights:
    if type(facts.config) is not type(model.config):
        raise CheckpointMismatch(
            f"{given.place} holds {facts.description}, and the run's model is of the family "
            f"{family_of(model).name}. Start from a model of that family."
        )
    wanted = dataclasses.replace(facts.config, in_channels=model.config.in_channels)
    adapted = adapt_arrays(given.arrays, wanted)
    return given._replace(arrays=adapted)


def _differ_in_classes_only(
    given: Mapping[str, Any], wanted: Mapping[str, Any], head: tuple[str, ...]
) -> bool:
    return all(given[name].shape[:-1] == wanted[name].shape[:-1] for name in head if name in given)
