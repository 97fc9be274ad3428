"""Build a model around given arrays, and fit pretrained arrays to other classes or channels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.build import abstract_model, array_shapes
from lska_jax.models.table import Family, family_of
from lska_jax.nn.functional import assign, batch_stats, parameters


def build_from_arrays(config: Any, arrays: Mapping[str, Any], *, rngs: nnx.Rngs) -> Any:
    """Build a model that holds the given arrays; no initial value is computed in vain.

    Args:
      config: of the model, of any family.
      arrays: parameters and statistics by path; a classifier that is not among them starts fresh.
      rngs: source of a fresh classifier and of the keys of dropout and drop path.

    Returns:
      The model in training mode.
    """
    model = abstract_model(config)
    head = family_of(config).head
    # Copies on the device: NumPy's memory may be a view of a file.
    loaded = {path: jnp.array(array, jnp.float32) for path, array in arrays.items()}
    if config.num_classes and head[0] not in arrays:
        loaded |= _fresh_head(config, head, rngs)
    assign(model, loaded)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout) and module.rngs is not None:
            module.rngs = rngs[module.rng_collection].fork()
    return model


def arrays_of(model: Any) -> dict[str, np.ndarray]:
    """Return a model's parameters and statistics by path, on the host."""
    arrays = {**parameters(model), **batch_stats(model)}
    return {path: np.asarray(array) for path, array in arrays.items()}


def adapt_arrays(
    arrays: Mapping[str, np.ndarray], family: Family, *, num_classes: int, in_channels: int
) -> dict[str, np.ndarray]:
    """Fit pretrained arrays to other classes and input channels, as timm does.

    A head of another number of classes is left out. The stem's kernel is summed over RGB for one
    channel; for several it is repeated in turn and scaled by 3 / channels.

    Args:
      arrays: by path.
      family: of the model that they are of.
      num_classes: wanted; 0 leaves the head out.
      in_channels: wanted.

    Raises:
      ValueError: other input channels than those of weights that do not take RGB.
    """
    adapted = dict(arrays)
    if any(path in adapted and adapted[path].shape[-1] != num_classes for path in family.head):
        for path in family.head:
            adapted.pop(path, None)
    adapted[family.stem] = _adapt_stem(adapted[family.stem], in_channels)
    return adapted


def _adapt_stem(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    given = kernel.shape[-2]
    if in_channels == given:
        return kernel
    if given != 3:
        raise ValueError(
            f"The weights take {given} input channels and cannot be adapted to {in_channels}: only "
            f"RGB weights can. Pass in_channels={given}."
        )
    if in_channels == 1:
        return kernel.sum(axis=-2, keepdims=True, dtype=np.float32)
    repeated = kernel[..., np.arange(in_channels) % given, :]
    return (repeated * np.float32(given / in_channels)).astype(np.float32)


def _fresh_head(config: Any, head: tuple[str, ...], rngs: nnx.Rngs) -> dict[str, jax.Array]:
    """Return the arrays that there are of the classifier: normal with std 0.02, no bias."""
    shapes = array_shapes(config)
    return {
        path: 0.02 * jax.random.normal(rngs.params(), shapes[path], jnp.float32)
        if len(shapes[path]) > 1
        else jnp.zeros(shapes[path], jnp.float32)
        for path in head
        if path in shapes
    }
