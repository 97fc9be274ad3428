"""Fold an InceptionNeXt's BatchNorm and layer scale into the products beside them, for inference.

With fixed statistics BatchNorm is n = a x + c for each channel, a = scale / sqrt(var + epsilon) and
c = bias - mean a. In a block (arXiv 2303.16900) a product follows it, and layer scale g follows
one:

    E(a x + c) = E'(x),    g (P y + b) = P' y + b'

The 2 x 2 patches of a transition take the norm ahead of them in the same way: no padding is
between, so this is exact. The stem's norm goes into the patches in front of it. No norm and no
scale of a map is left.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.inception_next import Block, InceptionNeXt, Stage
from lska_jax.nn.layers import BatchNorm


class FoldedBlock(nnx.Module):
    """x + MLP'(mixer(x))."""

    def __init__(self, block: Block):
        self.mixer = block.mixer
        self.mlp = block.mlp
        _fold_into_input(self.mlp.expand, *_affine(block.norm))
        _fold_into_output(self.mlp.project, _array(block.scale.scale), np.zeros(()))

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        return x + self.mlp(self.mixer(x))


class FoldedStage(nnx.Module):
    """Folded blocks."""

    def __init__(self, stage: Stage):
        self.blocks = nnx.List(FoldedBlock(block) for block in stage.blocks)

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class FoldedInceptionNeXt(InceptionNeXt):
    """An InceptionNeXt for inference, from ``fold``; ``features``, ``head`` and call are its own.

    Stem and transitions are their patches alone.
    """

    def __init__(self, model: InceptionNeXt):
        # Not InceptionNeXt's own __init__, which would draw new parameters.
        self.config = model.config
        self.preprocessing = model.preprocessing
        stem: Any = model.stem.projection
        _fold_into_output(stem, *_affine(model.stem.norm))
        self.stem = stem
        stages: list[Any] = [FoldedStage(stage) for stage in model.stages]
        self.stages = nnx.List(stages)
        for transition in model.transitions:
            _fold_into_input(transition.projection, *_affine(transition.norm))
        transitions: list[Any] = [transition.projection for transition in model.transitions]
        self.transitions = nnx.List(transitions)
        self.hidden = model.hidden
        self.norm = model.norm
        self.dropout = nnx.data(None)
        self.classifier = nnx.data(model.classifier)


def fold(model: InceptionNeXt) -> FoldedInceptionNeXt:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    return FoldedInceptionNeXt(nnx.clone(model))


def _array(variable: Any) -> np.ndarray:
    # Float64: what is folded is rounded once, not with every factor.
    return np.asarray(variable[...], np.float64)


def _affine(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return a and c of n = a x + c."""
    scale = _array(norm.scale) / np.sqrt(_array(norm.var) + norm.epsilon)
    return scale, _array(norm.bias) - _array(norm.mean) * scale


def _fold_into_input(layer: Any, scale: np.ndarray, shift: np.ndarray) -> None:
    """Change a product, or patches, so that it does what it did to scale x + shift."""
    kernel = _array(layer.kernel)  # (..., in, out)
    added = np.sum(shift[:, None] * kernel, axis=tuple(range(kernel.ndim - 1)))
    _assign(layer, scale[:, None] * kernel, _array(layer.bias) + added)


def _fold_into_output(layer: Any, scale: np.ndarray, shift: np.ndarray) -> None:
    """Change a product, or patches, so that it returns scale y + shift."""
    _assign(layer, _array(layer.kernel) * scale, _array(layer.bias) * scale + shift)


def _assign(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    layer.kernel.set_value(jnp.asarray(kernel, jnp.float32))
    layer.bias.set_value(jnp.asarray(bias, jnp.float32))
