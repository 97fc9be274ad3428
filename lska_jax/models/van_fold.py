"""Fold a VAN's BatchNorm and layer scale into the convolutions beside them, for inference.

BatchNorm is n = a x + c, see ``folding``. In a block (arXiv 2202.09741) with layer scales s1 and s2
and gate G,

    x' = x + s1 (n + P(G(gelu(E n))))  = (1 + s1 a) x + P'(G(gelu(E' x)))
    y  = x' + s2 F(a2 x' + c2)         = x' + F'(x')

E' is E with a and c in it, P' is P with s1 in its kernel and s1 c in its bias, and the FFN takes
a2, c2 into its first 1x1 and s2 into its last. All are 1x1 and see no padding, so this is exact; of
a block's two norms and two scales one multiplication stays. The patch embedding's norm goes into
its convolution, after whose padding it stands. LayerNorms depend on the input and stay.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.folding import affine_of, fold_into_input, fold_into_output, wide
from lska_jax.models.van import VAN, Block, attend


class FoldedBlock(nnx.Module):
    """A block without norms and scales: x' = shortcut x + P'(G(gelu(E' x))), then x' + F'(x')."""

    def __init__(self, block: Block):
        scale, shift = affine_of(block.norm_1)
        layer_scale = wide(block.scale_1.scale)
        attention = block.attention
        self.proj_in = attention.proj_in
        self.gate = attention.gate
        self.proj_out = attention.proj_out
        fold_into_input(self.proj_in, scale, shift)
        fold_into_output(self.proj_out, layer_scale, layer_scale * shift)
        self.shortcut = nnx.Param(jax.device_put((1 + layer_scale * scale).astype(np.float32)))
        self.ffn = block.ffn
        self.ffn.dropout = nnx.data(None)
        fold_into_input(self.ffn.expand, *affine_of(block.norm_2))
        fold_into_output(self.ffn.project, wide(block.scale_2.scale))

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        x = attend(x, self.proj_in, self.gate, self.proj_out, shortcut=self.shortcut[...])
        return x + self.ffn(x)


class FoldedVAN(VAN):
    """A VAN for inference, from ``fold``; ``features``, ``head`` and call are VAN's."""

    def __init__(self, model: VAN):
        # Not VAN's own __init__, which would draw new parameters.
        self.config = model.config
        self.preprocessing = model.preprocessing
        stages: Any = model.stages
        self.stages = stages
        for stage in stages:
            embedding = stage.patch_embedding
            fold_into_output(embedding.projection, *affine_of(embedding.norm))
            stage.patch_embedding = embedding.projection
            stage.blocks = nnx.List(FoldedBlock(block) for block in stage.blocks)
        self.classifier = nnx.data(model.classifier)


def fold(model: VAN) -> FoldedVAN:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    return FoldedVAN(nnx.clone(model))
