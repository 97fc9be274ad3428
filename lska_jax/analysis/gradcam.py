"""Grad-CAM (arXiv 1610.02391, section 3): where a map speaks for a class.

    alpha_c = mean over pixels of d y / d A_c        (eq. 1; y is the class's logit)
    L = relu(sum_c alpha_c A_c)                      (eq. 2)

A is the last map with rows and columns that the logits depend on at every pixel: the last stage's,
or in ViT, whose last block only hands the class token on, the patches in front of the last block.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lska_jax.analysis.intermediates import in_evaluation, watched

SOURCE = "Grad-CAM, arXiv 1610.02391, eq. 1 and 2"


class ClassMap(NamedTuple):
    """Grad-CAM's maps of a batch.

    Attributes:
      values: (B, h, w) float32, at least 0; one for each pixel of the network's map.
      labels: (B,), the classes that they are of.
      of_map: name of the network's map, as in ``feature_info``.
    """

    values: Float[np.ndarray, "batch height width"]
    labels: Int[np.ndarray, " batch"]
    of_map: str


def gradcam(
    network: Any,
    images: Float[Array | np.ndarray, "batch height width channels"],
    labels: Sequence[int] | None = None,
    *,
    of_map: str | None = None,
) -> ClassMap:
    """Return Grad-CAM's maps of any family.

    Args:
      network: of any family, with a classifier.
      images: (B, H, W, C), normalised.
      labels: a class for each image; None takes the one with the highest logit.
      of_map: name of another map, "stage2" or "block6".

    Raises:
      ValueError: there is no such map or class, or the network has no classifier.
    """
    if not network.config.num_classes:
        raise ValueError("The network has no classifier, and Grad-CAM is of a class's logit.")
    wanted = _checked_labels(labels, len(images), network.config.num_classes)
    of_map = of_map or default_map(network)
    path = _module_path(network, of_map)
    graph, state = nnx.split(in_evaluation(network))
    images = jnp.asarray(images, jnp.float32)
    (grid,) = (
        found.shape[1:3]
        for name, found in jax.eval_shape(
            lambda state: nnx.merge(graph, state).features(images)._asdict(), state
        ).items()
        if name == of_map
    )
    maps, taken = _compute(
        state,
        images,
        jnp.asarray(wanted),
        graph=graph,
        path=path,
        grid=tuple(grid),
        prefix=getattr(network.config, "prefix_tokens", 0),
    )
    return ClassMap(np.asarray(maps), np.asarray(taken), of_map)


@functools.partial(jax.jit, static_argnames=("graph", "path", "grid", "prefix"))
def _compute(
    state: Any,
    images: Array,
    labels: Array,
    *,
    graph: Any,
    path: str,
    grid: tuple[int, int],
    prefix: int,
) -> tuple[Array, Array]:
    """Return the maps and their labels; a negative label stands for the highest logit."""

    def run(change: Array | None) -> tuple[Array, Array]:
        seen: list[Array] = []

        def shift(_: str, __: Any, ___: Any, out: Array) -> Array:
            seen.append(out)
            return out if change is None else out + change.astype(out.dtype)

        inside = watched(nnx.merge(graph, state), shift, is_wanted=lambda name, _: name == path)
        logits = inside(images)
        return logits, seen[0].astype(jnp.float32)

    def chosen(change: Array) -> tuple[Array, tuple[Array, Array]]:
        logits, values = run(change)
        taken = jnp.where(labels < 0, jnp.argmax(logits, axis=-1), labels)
        picked = jnp.take_along_axis(logits, taken[:, None], axis=-1)
        return jnp.sum(picked), (values, taken)

    shape = jax.eval_shape(lambda: run(None)[1]).shape
    gradient, (values, taken) = jax.grad(chosen, has_aux=True)(jnp.zeros(shape, jnp.float32))
    slope, values = (_as_map(array, grid, prefix) for array in (gradient, values))
    weights = jnp.mean(slope, axis=(1, 2), keepdims=True)
    return jax.nn.relu(jnp.sum(weights * values, axis=-1)), taken


def default_map(network: Any) -> str:
    """Return the name of the map that Grad-CAM is of unless another is named.

    Raises:
      ValueError: the network has no such map.
    """
    maps = [info.name for info in network.feature_info if info.stride is not None]
    if network.feature_info[-1].stride is None:
        # Of the last block only the class token is read.
        maps = maps[:-1]
    if not maps:
        raise ValueError("The network has no map with rows and columns in front of its head.")
    return maps[-1]


def _module_path(network: Any, of_map: str) -> str:
    """Return the path of the module whose output a map is: stages and blocks count from 1."""
    names = [info.name for info in network.feature_info if info.stride is not None]
    modules = {"stage": "stages", "block": "blocks"}
    kind, number = of_map.rstrip("0123456789"), of_map.lstrip("stageblock")
    if of_map not in names or kind not in modules:
        raise ValueError(f"There is no map {of_map!r}; this network has {', '.join(names)}.")
    return f"{modules[kind]}/{int(number) - 1}"


def _as_map(values: Array, grid: tuple[int, ...], prefix: int) -> Array:
    if values.ndim == 4:
        return values
    return values[:, prefix:].reshape(len(values), *grid, values.shape[-1])


def _checked_labels(labels: Sequence[int] | None, count: int, classes: int) -> np.ndarray:
    if labels is None:
        return np.full(count, -1, np.int32)
    wanted = np.asarray(labels, np.int32)
    if wanted.shape != (count,) or wanted.min() < 0 or wanted.max() >= classes:
        raise ValueError(
            f"labels={list(labels)}: give one for each of {count} images, from 0 to {classes - 1}."
        )
    return wanted
