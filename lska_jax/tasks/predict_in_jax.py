"""Probabilities of pixels, computed by JAX: the network of ``predict``, and its start.

A single batch of images is over in a moment, so what takes long is to start. Its program is kept
with the compiled ones (``running.kept_programs``) and is given a model folder's arrays as they are
stored: a later process builds no network, and imports no Flax. For more images the network is
folded first, which makes each of them faster.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lska_jax.data.mixing import normalise
from lska_jax.running.inline_dispatch import wait_on_cpu
from lska_jax.running.kept_programs import can_keep, keep_program
from lska_jax.tasks.views import average_views
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_own_arrays

Probabilities = Callable[[np.ndarray], np.ndarray]


def probabilities_in_jax(
    pretrained: str | Path, facts: ModelFacts, *, views: str, is_one_batch: bool
) -> Probabilities:
    """Return a function from pixels (B, ..., S, S, C) uint8 to probabilities (B, classes).

    Args:
      pretrained: where the model is, as in ``predict``.
      facts: about it.
      views: of each image, see ``tasks.views``.
      is_one_batch: whether it will be called once.

    Raises:
      ValueError: a damaged folder.
      FileNotFoundError: there is no such model.
    """
    if is_one_batch and can_keep():
        stored = read_own_arrays(pretrained)
        if stored is not None:
            return _kept(pretrained, stored, facts, views)
    return _folded(pretrained, facts, views)


def _kept(
    pretrained: str | Path, stored: dict[str, np.ndarray], facts: ModelFacts, views: str
) -> Probabilities:
    arrays = jax.device_put(stored)
    described = repr((facts.config, facts.preprocessing, facts.is_multi_label, views))

    def make() -> Callable[[dict[str, jax.Array], jax.Array], jax.Array]:
        from lska_jax.nn.functional import ModelFunctions
        from lska_jax.weights.create import create_model

        functions = ModelFunctions(create_model(pretrained=pretrained, compilation_cache="off"))

        def probabilities(arrays: dict[str, jax.Array], pixels: jax.Array) -> jax.Array:
            return _average(
                lambda images: functions.evaluate(arrays, arrays, images), pixels, facts, views
            )

        return probabilities

    def run(pixels: np.ndarray) -> np.ndarray:
        name = "probabilities"
        program = keep_program(make, arrays, pixels, name=name, described=described)
        return np.asarray(program(arrays, pixels))

    return run


def _folded(pretrained: str | Path, facts: ModelFacts, views: str) -> Probabilities:
    """Return the function of a folded network: one program for all weights of a network."""
    from flax import nnx

    from lska_jax.models.fold import fold_for_inference
    from lska_jax.weights.create import create_model

    graph, state = nnx.split(
        fold_for_inference(create_model(pretrained=pretrained, compilation_cache="off"))
    )

    @jax.jit
    def probabilities(state: Any, pixels: jax.Array) -> jax.Array:
        return _average(nnx.merge(graph, state, copy=True), pixels, facts, views)

    return lambda pixels: np.asarray(probabilities(state, wait_on_cpu(jnp.asarray(pixels))))


def _average(
    network: Callable[[jax.Array], jax.Array], pixels: jax.Array, facts: ModelFacts, views: str
) -> jax.Array:
    prepared = facts.preprocessing
    logits = average_views(
        lambda view: network(normalise(view, mean=prepared.mean, std=prepared.std)),
        pixels,
        views=views,
        is_multi_label=facts.is_multi_label,
    )
    return jax.nn.sigmoid(logits) if facts.is_multi_label else jax.nn.softmax(logits)
