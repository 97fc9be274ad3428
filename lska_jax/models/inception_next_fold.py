"""Fold an InceptionNeXt's BatchNorm and layer scale into the products beside them, for inference.

BatchNorm is n = a x + c, see ``folding``. In a block (arXiv 2303.16900) a product follows it, and
layer scale g follows one:

    E(a x + c) = E'(x),    g (P y + b) = P' y + b'

The 2 x 2 patches of a transition take the norm ahead of them in the same way: no padding is
between, so this is exact. The stem's norm goes into the patches in front of it. No norm and no
scale of a map is left.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.folding import affine_of, fold_into_input, fold_into_output, wide
from lska_jax.models.inception_next import Block, InceptionNeXt


class FoldedBlock(nnx.Module):
    """x + MLP'(mixer(x))."""

    def __init__(self, block: Block):
        self.mixer = block.mixer
        self.mlp = block.mlp
        fold_into_input(self.mlp.expand, *affine_of(block.norm))
        fold_into_output(self.mlp.project, wide(block.scale.scale))

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        return x + self.mlp(self.mixer(x))


class FoldedInceptionNeXt(InceptionNeXt):
    """An InceptionNeXt for inference, from ``fold``; ``features``, ``head`` and call are its own.

    Stem and transitions are their patches alone.
    """

    def __init__(self, model: InceptionNeXt):
        # Not InceptionNeXt's own __init__, which would draw new parameters.
        self.config = model.config
        self.preprocessing = model.preprocessing
        stem: Any = model.stem.projection
        fold_into_output(stem, *affine_of(model.stem.norm))
        self.stem = stem
        stages: Any = model.stages
        self.stages = stages
        for stage in stages:
            stage.blocks = nnx.List(FoldedBlock(block) for block in stage.blocks)
        for transition in model.transitions:
            fold_into_input(transition.projection, *affine_of(transition.norm))
        transitions: list[Any] = [transition.projection for transition in model.transitions]
        self.transitions = nnx.List(transitions)
        self.hidden = model.hidden
        self.norm = model.norm
        self.dropout = nnx.data(None)
        self.classifier = nnx.data(model.classifier)


def fold(model: InceptionNeXt) -> FoldedInceptionNeXt:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    return FoldedInceptionNeXt(nnx.clone(model))
