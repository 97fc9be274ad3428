"""Start a model from a run's weights or a model folder, for other classes or image sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from lska_jax.models.table import family_of
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.training.checkpoint.checkpointer import CheckpointMismatch, load_tree
from lska_jax.training.checkpoint.tree_difference import check_same_tree
from lska_jax.weights.model_folder import is_model_folder, read_model_folder
from lska_jax.weights.pretrained import adapt_arrays


def evaluation_arrays(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters and statistics of a loaded checkpoint by path, averaged where it has them.

    Args:
      tree: ``LoadedTree.tree`` of a ``TrainState``.
    """
    chosen = tree["ema"] if tree.get("ema") else tree
    return {**chosen["params"], **chosen["batch_stats"]}


def load_for_finetuning(model: Any, path: str | Path) -> str:
    """Write pretrained weights into a model, all of them but a head of another size.

    Any image size works that the network takes. The head is kept at its fresh values
    when the number of classes differs, and only then. A model folder's RGB weights are adapted to
    other input channels.

    Args:
      model: the model to start, freshly initialised.
      path: a model folder; or a run's folder, its checkpoints folder or one step's folder, of which
        the best step is taken.

    Returns:
      One line that says what was loaded and what was not.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: a model folder is damaged.
      CheckpointMismatch: anything but the size of the head differs; every difference is listed.
    """
    arrays, place, remark = _pretrained_arrays(model, Path(path))
    wanted = {**parameters(model), **batch_stats(model)}
    head = family_of(model).head
    new_head = [
        name
        for name in head
        if name in wanted and name in arrays and arrays[name].shape != wanted[name].shape
    ]
    if new_head and not _differ_in_classes_only(arrays, wanted, head):
        new_head = []
    if not any(name in arrays for name in head):
        new_head = [name for name in head if name in wanted]
    for name in new_head:
        arrays.pop(name, None)
        del wanted[name]
    check_same_tree(arrays, wanted, where=place)
    assign(model, {name: jnp.asarray(array) for name, array in arrays.items()})
    remains = "with a fresh head for other classes" if new_head else "head included"
    return f"Starting from {place}, {len(arrays)} arrays, {remains}.{remark}"


def _pretrained_arrays(model: Any, path: Path) -> tuple[dict[str, Any], str, str]:
    """Return arrays by path, where they come from, and what to know about them."""
    if not is_model_folder(path):
        loaded = load_tree(path, step="best")
        return evaluation_arrays(loaded.tree), str(loaded.folder), ""
    facts, arrays = read_model_folder(path)
    if type(facts.config) is not type(model.config):
        raise CheckpointMismatch(
            f"{path} holds {facts.description}, and the run's model is of the family "
            f"{family_of(model).name}. Start from a folder of that family."
        )
    adapted = adapt_arrays(
        arrays,
        family_of(model),
        num_classes=facts.config.num_classes,
        in_channels=model.config.in_channels,
    )
    prepared = facts.preprocessing
    return adapted, str(path), f" They were trained with mean {prepared.mean}, std {prepared.std}."


def _differ_in_classes_only(
    given: Mapping[str, Any], wanted: Mapping[str, Any], head: tuple[str, ...]
) -> bool:
    return all(given[name].shape[:-1] == wanted[name].shape[:-1] for name in head if name in given)
