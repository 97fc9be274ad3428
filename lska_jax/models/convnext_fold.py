"""Fold a ConvNeXt's scales and shifts into the products beside them, for inference.

LayerNorm is n(x) s + t, where n whitens each pixel and has no parameters. What follows it in a
block (arXiv 2201.03545) is a product, and what layer scale g follows is one too:

    E(n s + t) = E'(n),    g (P y + b) = P' y + b'

E' has s in its kernel and t in its bias, P' has g in both. The 2 x 2 patches of a transition and
the classifier take the norm ahead of them in the same way: no padding is between, so this is exact.
The stem's LayerNorm stays: shortcuts and padded convolutions see what it returns.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.convnext import Block, ConvNeXt
from lska_jax.models.folding import fold_into_input, fold_into_output, wide
from lska_jax.nn.layers import LayerNorm
from lska_jax.ops.fusion import written_out


class FoldedBlock(nnx.Module):
    """x + MLP'(n(depthwise(x))), where n has no parameters."""

    def __init__(self, block: Block):
        self.depthwise = block.depthwise
        self.norm = block.norm
        self.mlp = block.mlp
        _fold_norm(self.norm, self.mlp.expand)
        fold_into_output(self.mlp.project, wide(block.scale.scale))

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        return x + self.mlp(self.norm(written_out(self.depthwise(x))))


class FoldedConvNeXt(ConvNeXt):
    """A ConvNeXt for inference, from ``fold``; ``features``, ``head`` and call are ConvNeXt's."""

    def __init__(self, model: ConvNeXt):
        # Not ConvNeXt's own __init__, which would draw new parameters.
        self.config = model.config
        self.preprocessing = model.preprocessing
        self.stem = model.stem
        stages: Any = model.stages
        self.stages = stages
        for stage in stages:
            stage.blocks = nnx.List(FoldedBlock(block) for block in stage.blocks)
        self.transitions = model.transitions
        for transition in self.transitions:
            _fold_norm(transition.norm, transition.projection)
        self.norm = model.norm
        self.classifier = nnx.data(model.classifier)
        if self.classifier is not None:
            _fold_norm(self.norm, self.classifier)


def fold(model: ConvNeXt) -> FoldedConvNeXt:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    return FoldedConvNeXt(nnx.clone(model))


def _fold_norm(norm: LayerNorm, layer: Any) -> None:
    """Move scale and shift of a LayerNorm into the product, or patches, behind it."""
    fold_into_input(layer, wide(norm.scale), wide(norm.bias))
    norm.scale, norm.bias = nnx.data(None), nnx.data(None)
