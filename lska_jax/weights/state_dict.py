"""A model's weights as a PyTorch state_dict with its family's names, in and out."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lska_jax.models.build import array_shapes
from lska_jax.models.table import family_of, load_capability
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.weights.conversion import convert, stored
from lska_jax.weights.names.rows import COUNTER


def load_state_dict(model: Any, state_dict: Mapping[str, Any]) -> None:
    """Write PyTorch weights into a model, in place, all of them or none.

    Args:
      model: of a family with PyTorch checkpoints.
      state_dict: {name: array in PyTorch layout}, floating point, in any of the family's namings;
        the ``num_batches_tracked`` counters are ignored.

    Raises:
      ValueError: the model is folded; names are missing or unexpected, arrays have another shape
        or no floating-point dtype, or hold values that are not finite; every one is listed, and
        the model is left as it was.
    """
    wanted = {**parameters(model), **batch_stats(model)}
    _check_unfolded(model.config, wanted)
    names = load_capability(family_of(model), "names")
    loaded = convert(
        {name: stored(array) for name, array in state_dict.items()},
        {path: array.shape for path, array in wanted.items()},
        names=names,
        variant=names.variant_of(model.config),
        refusal=(
            "The state_dict does not fit this model, nothing was loaded. Check the model's name, "
            "k and num_classes."
        ),
    )
    assign(
        model,
        {path: jnp.asarray(array, dtype=wanted[path].dtype) for path, array in loaded.items()},
    )


def make_state_dict(model: Any, *, naming: str = "") -> dict[str, np.ndarray]:
    """Return a model's weights as the state_dict of a PyTorch model of its family.

    Args:
      model: of a family with PyTorch checkpoints, not folded.
      naming: one of the family's namings; VAN has "reference", "detection" and "hugging_face". ""
        is the first.

    Returns:
      {name: array in PyTorch layout} in the reference's order, float32, with a zero
      ``num_batches_tracked`` for every BatchNorm.

    Raises:
      ValueError: an unknown naming, one that does not know the model's form, or a folded model.
    """
    arrays = {**parameters(model), **batch_stats(model)}
    return name_arrays(model.config, jax_to_numpy(arrays), naming=naming)


def jax_to_numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays on the host."""
    return {path: np.asarray(array) for path, array in arrays.items()}


def name_arrays(
    config: Any, arrays: Mapping[str, np.ndarray], *, naming: str = ""
) -> dict[str, np.ndarray]:
    """Return a model's arrays by PyTorch name; see ``make_state_dict``.

    Args:
      config: the model's.
      arrays: its parameters and statistics by path.
      naming: see ``make_state_dict``; "" is the family's first.

    Raises:
      ValueError: see ``make_state_dict``.
    """
    _check_unfolded(config, arrays)
    names = load_capability(family_of(config), "names")
    variant = names.variant_of(config)
    named: dict[str, np.ndarray] = {}
    for path in names.in_order(list(arrays), variant=variant):
        parts, layout = names.parts_of(path, variant=variant, naming=naming)
        whole = layout.torch_array(arrays[path])
        named |= zip(parts, np.split(whole, len(parts)) if len(parts) > 1 else [whole], strict=True)
        if path.endswith("/var"):
            counter = parts[0].removesuffix("running_var") + COUNTER
            named[counter] = np.zeros((), np.int64)
    return named | names.unused_arrays(naming or names.namings[0], config)


def _check_unfolded(config: Any, arrays: Mapping[str, Any]) -> None:
    others = arrays.keys() ^ array_shapes(config).keys()
    if others:
        raise ValueError(
            f"The arrays are not those of {family_of(config).describe(config)}: {len(others)} are "
            f"missing or have no name in a checkpoint, such as {min(others)}. A folded network has "
            "arrays of its own; take the network that it was folded from."
        )
