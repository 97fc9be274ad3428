"""Build a model around given arrays, and fit pretrained arrays to other classes or channels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.van import VAN, VANConfig
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.nn.initial_values import OneKey

STEM = "stages/0/patch_embedding/projection/kernel"
HEAD = ("classifier/kernel", "classifier/bias")


def build_from_arrays(config: VANConfig, arrays: Mapping[str, Any], *, rngs: nnx.Rngs) -> VAN:
    """Build a model that holds the given arrays; no initial value is computed in vain.

    Args:
      config: of the model.
      arrays: parameters and statistics by path; a classifier that is not among them starts fresh.
      rngs: source of a fresh classifier and of the keys of dropout and drop path.

    Returns:
      The model in training mode.
    """
    model = nnx.eval_shape(lambda: VAN(config, rngs=OneKey()))
    # Copies on the device: NumPy's memory may be a view of a file.
    loaded = {path: jnp.array(array, jnp.float32) for path, array in arrays.items()}
    if config.num_classes and HEAD[0] not in arrays:
        loaded |= _fresh_head(config, rngs)
    assign(model, loaded)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout) and module.rngs is not None:
            module.rngs = rngs[module.rng_collection].fork()
    return model


def arrays_of(model: VAN) -> dict[str, np.ndarray]:
    """Return a model's parameters and statistics by path, on the host."""
    arrays = {**parameters(model), **batch_stats(model)}
    return {path: np.asarray(array) for path, array in arrays.items()}


def adapt_arrays(
    arrays: Mapping[str, np.ndarray], *, num_classes: int, in_channels: int
) -> dict[str, np.ndarray]:
    """Fit pretrained arrays to other classes and input channels, as timm does.

    A head of another number of classes is left out. The stem's kernel is summed over RGB for one
    channel; for several it is repeated in turn and scaled by 3 / channels.

    Args:
      arrays: by path.
      num_classes: wanted; 0 leaves the head out.
      in_channels: wanted.

    Raises:
      ValueError: other input channels than those of weights that do not take RGB.
    """
    adapted = dict(arrays)
    if HEAD[0] in adapted and adapted[HEAD[0]].shape[1] != num_classes:
        for path in HEAD:
            del adapted[path]
    adapted[STEM] = _adapt_stem(adapted[STEM], in_channels)
    return adapted


def _adapt_stem(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    given = kernel.shape[2]
    if in_channels == given:
        return kernel
    if given != 3:
        raise ValueError(
            f"The weights take {given} input channels and cannot be adapted to {in_channels}: only "
            f"RGB weights can. Pass in_channels={given}."
        )
    if in_channels == 1:
        return kernel.sum(axis=2, keepdims=True, dtype=np.float32)
    repeated = kernel[:, :, np.arange(in_channels) % given]
    return (repeated * np.float32(given / in_channels)).astype(np.float32)


def _fresh_head(config: VANConfig, rngs: nnx.Rngs) -> dict[str, jax.Array]:
    # As in VAN: normal with std 0.02, no bias.
    shape = (config.dims[-1], config.num_classes)
    kernel = 0.02 * jax.random.normal(rngs.params(), shape, jnp.float32)
    return {HEAD[0]: kernel, HEAD[1]: jnp.zeros(shape[1:], jnp.float32)}
