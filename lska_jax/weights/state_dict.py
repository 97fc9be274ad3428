"""A model's weights as a PyTorch state_dict with the family's names, in and out."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lska_jax.models.van import VAN, VANConfig
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.weights.architecture import array_shapes
from lska_jax.weights.conversion import convert, stored
from lska_jax.weights.names.van import COUNTER, UNUSED_BY_HUGGING_FACE, reference_name


def load_state_dict(model: VAN, state_dict: Mapping[str, Any]) -> None:
    """Write PyTorch weights into a model, in place, all of them or none.

    Args:
      model: a VAN.
      state_dict: {name: array in PyTorch layout}, floating point, with the names of the reference
        classification code, of its detection copies or of Hugging Face; the
        ``num_batches_tracked`` counters are ignored.

    Raises:
      ValueError: names are missing or unexpected, arrays have another shape or no floating-point
        dtype, or hold values that are not finite; every one is listed, and the model is left as
        it was.
    """
    wanted = {**parameters(model), **batch_stats(model)}
    loaded = convert(
        {name: stored(array) for name, array in state_dict.items()},
        {path: array.shape for path, array in wanted.items()},
        attention=model.config.attention,
        refusal=(
            "The state_dict does not fit this model, nothing was loaded. Check the model's name, "
            "k and num_classes."
        ),
    )
    assign(
        model,
        {path: jnp.asarray(array, dtype=wanted[path].dtype) for path, array in loaded.items()},
    )


def make_state_dict(model: VAN, *, naming: str = "reference") -> dict[str, np.ndarray]:
    """Return a model's weights as the state_dict of a PyTorch model of the family.

    Args:
      model: a VAN, not folded.
      naming: "reference", "detection" or "hugging_face".

    Returns:
      {name: array in PyTorch layout} in the reference's order, float32, with a zero
      ``num_batches_tracked`` for every BatchNorm.

    Raises:
      ValueError: an unknown naming, or Hugging Face's for another attention than LKA.
    """
    arrays = {**parameters(model), **batch_stats(model)}
    return name_arrays(model.config, jax_to_numpy(arrays), naming=naming)


def jax_to_numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays on the host."""
    return {path: np.asarray(array) for path, array in arrays.items()}


def name_arrays(
    config: VANConfig, arrays: Mapping[str, np.ndarray], *, naming: str = "reference"
) -> dict[str, np.ndarray]:
    """Return a model's arrays by PyTorch name; see ``make_state_dict``.

    Args:
      config: the model's.
      arrays: its parameters and statistics by path.
      naming: see ``make_state_dict``.
    """
    named: dict[str, np.ndarray] = {}
    for path in array_shapes(config):
        name, layout = reference_name(path, attention=config.attention, naming=naming)
        named[name] = layout.torch_array(arrays[path])
        if path.endswith("/var"):
            counter = name.removesuffix("running_var") + COUNTER
            named[counter] = np.zeros((), np.int64)
    if naming == "hugging_face":
        weight, bias = UNUSED_BY_HUGGING_FACE
        named[weight] = np.ones(config.dims[-1], np.float32)
        named[bias] = np.zeros(config.dims[-1], np.float32)
    return named
