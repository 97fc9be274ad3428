"""Export a model's evaluation as one program for every backend of JAX.

It holds the network as StableHLO for CPU, CUDA and TPU, weights included, for any batch size,
and runs without this package:

    import jax.export
    exported = jax.export.deserialize(open("van.jaxexport", "rb").read())
    logits = exported.call(images)    # (B, image_size, image_size, C) float32, normalised

A segmentor's logits are (B, height, width, classes), of its finest map. A detector returns a
dictionary of what ``models.dense.detector.Detections`` holds, boxes in pixels of the images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from lska_jax.models.fold import fold_for_inference
from lska_jax.weights.pretrained import arrays_of, build_from_arrays

PLATFORMS = ("cpu", "cuda", "tpu")
# The one formulation that every backend takes; "auto" would choose for the exporting machine.
_IMPLEMENTATION = "xla"


def export_model(
    model: Any,
    *,
    image_size: int | tuple[int, int] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Export a model's evaluation for several platforms at once, with a symbolic batch.

    What the family can fold is folded, and the arrays are constants of the artifact.

    Args:
      model: of any family, not folded.
      image_size: side of the square images, or height and width; None is that of the model's
        preprocessing.
      platforms: of "cpu", "cuda", "rocm", "tpu".

    Returns:
      An export whose ``call`` maps images (B, H, W, C) float32, normalised, to what the model
      returns, a tuple with names as a dictionary; write it with ``serialize()``.
    """
    size = image_size or model.preprocessing.image_size
    height, width = (size, size) if isinstance(size, int) else size
    folded = portable_model(model)
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, height, width, model.config.in_channels), jnp.float32)
    program = jax.jit(lambda images: _plain(folded(images)))
    return export.export(program, platforms=tuple(platforms))(images)


def _plain(outputs: Any) -> Any:
    """Return outputs without a class of this package, which runs without it."""
    if not hasattr(outputs, "_asdict"):
        return outputs
    return {name: array for name, array in outputs._asdict().items() if array is not None}


def portable_model(model: Any, *, dtype: str | None = None) -> Any:
    """Return a model for inference, with the formulations that every backend takes.

    Args:
      model: of any family, not folded.
      dtype: that it computes in; None is its own.
    """
    config = model.config
    if hasattr(config, "implementation"):
        config = dataclasses.replace(config, implementation=_IMPLEMENTATION)
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    portable = build_from_arrays(config, arrays_of(model), rngs=nnx.Rngs(0))
    portable.preprocessing = model.preprocessing
    return fold_for_inference(portable)
