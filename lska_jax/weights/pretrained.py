"""Build a model around given arrays, and fit pretrained arrays to other classes or channels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.build import abstract_model, array_shapes, build
from lska_jax.models.heads import BACKBONE, backbone_config, head_of
from lska_jax.models.table import family_of
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
    # Copies, which the device may take over: the memory of ``arrays`` may be a view of a file. All
    # at once: each array on its own is a program to compile for every shape.
    loaded = jax.device_put({p: np.array(array, np.float32) for p, array in arrays.items()})
    if head_of(config) and head[0] not in arrays:
        fresh = parameters(build(config, rngs=rngs))
        loaded |= {path: fresh[path] for path in head}
    elif config.num_classes and head[0] not in arrays:
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


def adapt_arrays(arrays: Mapping[str, np.ndarray], config: Any) -> dict[str, np.ndarray]:
    """Fit pretrained arrays to other classes and input channels, as timm does.

    A head of another number of classes is left out. The stem's kernel is summed over RGB for one
    channel; for several it is repeated in turn and scaled by 3 / channels.

    Args:
      arrays: by path.
      config: of the model that is wanted, which differs from theirs in these numbers only.

    Raises:
      ValueError: other input channels than those of weights that do not take RGB.
    """
    adapted, family, shapes = dict(arrays), family_of(config), array_shapes(config)
    if any(path in adapted and adapted[path].shape != shapes.get(path) for path in family.head):
        for path in family.head:
            adapted.pop(path, None)
    adapted[family.stem] = _adapt_stem(adapted[family.stem], config.in_channels)
    return adapted


class BackboneStart(NamedTuple):
    """What a dense network takes of a classifier's weights.

    Attributes:
      arrays: of its backbone, by its own paths.
      left: paths of the classifier that it does not take.
      fresh: paths of its own arrays that keep their initial values.
    """

    arrays: dict[str, np.ndarray]
    left: tuple[str, ...]
    fresh: tuple[str, ...]


def start_backbone(arrays: Mapping[str, np.ndarray], config: Any, *, where: str) -> BackboneStart:
    """Return what a dense network takes of the weights of a classifier of its family.

    Args:
      arrays: of the classifier, by path.
      config: of the dense network.
      where: the weights are, for the message.

    Raises:
      ValueError: they are not those of its backbone; every difference is listed.
    """
    wanted = array_shapes(backbone_config(config))
    given = {path: tuple(array.shape) for path, array in arrays.items()}
    classifier = family_of(backbone_config(config)).head
    stem = family_of(backbone_config(config)).stem
    adapted = dict(arrays)
    if stem in adapted and len(given[stem]) == len(wanted[stem]):
        adapted[stem] = _adapt_stem(arrays[stem], config.in_channels)
        given[stem] = adapted[stem].shape
    problems = [f"{path}: missing" for path in wanted if path not in given]
    problems += [f"{p}: not in the backbone" for p in given if p not in {*wanted, *classifier}]
    problems += [
        f"{path}: {given[path]}, expected {shape}"
        for path, shape in wanted.items()
        if path in given and given[path] != shape
    ]
    if problems:
        raise ValueError(
            f"{where} does not fit the backbone of {family_of(config).describe(config)}; nothing "
            "was taken:\n  " + "\n  ".join(problems)
        )
    taken = {f"{BACKBONE}/{path}": adapted[path] for path in wanted}
    fresh = tuple(path for path in array_shapes(config) if path not in taken)
    return BackboneStart(taken, tuple(path for path in given if path not in wanted), fresh)


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
