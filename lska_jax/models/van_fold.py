"""Fold a VAN's BatchNorm and layer scale into the convolutions beside them, for inference.

With fixed statistics BatchNorm is n = a x + c for each channel, a = scale / sqrt(var + epsilon) and
c = bias - mean a. In a block (arXiv 2202.09741) with layer scales s1, s2 and gate G,

    x' = x + s1 (n + P(G(gelu(E n))))  = (1 + s1 a) x + P'(G(gelu(E' x)))
    y  = x' + s2 F(a2 x' + c2)         = x' + F'(x')

E' is E with a and c in it, P' is P with s1 in its kernel and s1 c in its bias, and the FFN takes
a2, c2 into its first 1x1 and s2 into its last. All are 1x1 and see no padding, so this is exact; of
a block's two norms and two scales one multiplication stays. The patch embedding's norm goes into
its convolution, after whose padding it stands. LayerNorms depend on the input and stay.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.van import VAN, Block, Stage, attend
from lska_jax.nn.layers import BatchNorm, LayerNorm, PatchEmbedding


class FoldedBlock(nnx.Module):
    """A block without norms and scales: x' = shortcut x + P'(G(gelu(E' x))), then x' + F'(x')."""

    def __init__(self, block: Block):
        scale, shift = _affine(block.norm_1)
        layer_scale = _array(block.scale_1.scale)
        attention = block.attention
        self.proj_in = attention.proj_in
        self.gate = attention.gate
        self.proj_out = attention.proj_out
        _fold_into_input(self.proj_in, scale, shift)
        _fold_into_output(self.proj_out, layer_scale, layer_scale * shift)
        self.shortcut = nnx.Param(jnp.asarray(1 + layer_scale * scale, jnp.float32))
        self.ffn = block.ffn
        self.ffn.dropout = nnx.data(None)
        _fold_into_input(self.ffn.expand, *_affine(block.norm_2))
        _fold_into_output(self.ffn.project, _array(block.scale_2.scale), np.zeros(()))

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        x = attend(x, self.proj_in, self.gate, self.proj_out, shortcut=self.shortcut[...])
        return x + self.ffn(x)


class FoldedStage(nnx.Module):
    """A convolution, folded blocks, LayerNorm."""

    def __init__(self, stage: Stage):
        self.projection = _folded_projection(stage.patch_embedding)
        self.blocks = nnx.List(FoldedBlock(block) for block in stage.blocks)
        self.norm: LayerNorm = stage.norm

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return the stage's map, normalised over channels."""
        x = self.projection(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class FoldedVAN(VAN):
    """A VAN for inference, from ``fold``; ``features``, ``head`` and call are VAN's."""

    def __init__(self, model: VAN):
        # Not VAN's own __init__, which would draw new parameters.
        self.config = model.config
        self.preprocessing = model.preprocessing
        stages: list[Any] = [FoldedStage(s) for s in model.stages]
        self.stages = nnx.List(stages)
        self.classifier = nnx.data(model.classifier)


def fold(model: VAN) -> FoldedVAN:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    return FoldedVAN(nnx.clone(model))


def _array(variable: Any) -> np.ndarray:
    # Float64: what is folded is rounded once, not with every factor.
    return np.asarray(variable[...], np.float64)


def _affine(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return a and c of n = a x + c."""
    scale = _array(norm.scale) / np.sqrt(_array(norm.var) + norm.epsilon)
    return scale, _array(norm.bias) - _array(norm.mean) * scale


def _fold_into_input(linear: nnx.Linear, scale: np.ndarray, shift: np.ndarray) -> None:
    """Change a 1x1 so that it does what it did to scale x + shift."""
    kernel = _array(linear.kernel)
    _assign(linear, scale[:, None] * kernel, _array(linear.bias) + shift @ kernel)


def _fold_into_output(linear: nnx.Linear, scale: np.ndarray, shift: np.ndarray) -> None:
    """Change a 1x1 so that it returns scale y + shift."""
    _assign(linear, _array(linear.kernel) * scale, _array(linear.bias) * scale + shift)


def _folded_projection(embedding: PatchEmbedding) -> nnx.Conv:
    scale, shift = _affine(embedding.norm)
    conv = embedding.projection
    _assign(conv, _array(conv.kernel) * scale, _array(conv.bias) * scale + shift)
    return conv


def _assign(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    layer.kernel.set_value(jnp.asarray(kernel, jnp.float32))
    layer.bias.set_value(jnp.asarray(bias, jnp.float32))
