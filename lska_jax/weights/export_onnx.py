"""Export a model's evaluation as ONNX.

The network with its weights, BatchNorm folded, for any batch size, through jax2onnx. What was
written is run by onnxruntime and compared with the model before the file is put in place. Both
packages are installed apart from this one's requirements, see docs/weights.md.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from lska_jax.weights.export_jax import portable_model

# Of the largest output. Float32 rounding of another runtime's sums; 6e-7 was seen.
_TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)


def export_onnx(model: Any, *, image_size: int | None = None) -> bytes:
    """Return a model's evaluation as ONNX, compared with the model in onnxruntime.

    Args:
      model: of any family, not folded.
      image_size: side of the square images; None is that of the model's preprocessing.

    Returns:
      The ONNX file: images (batch, S, S, C) float32, normalised, to what the model returns.

    Raises:
      ImportError: jax2onnx or onnxruntime is not installed.
      ValueError: the exported network computes something else.
    """
    try:
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ImportError(
            f"ONNX needs jax2onnx and onnxruntime ({error}): pip install jax2onnx onnxruntime, "
            "then pip install the orbax-checkpoint of requirements.txt again."
        ) from error
    size = image_size or model.preprocessing.image_size
    shape = (size, size, model.config.in_channels)
    folded = portable_model(model)
    with _quiet():
        exported = to_onnx(lambda images: folded(images), inputs=[("batch", *shape)])
    data = exported.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    run = jax.jit(lambda images: folded(images))
    for batch in _CHECKED_BATCHES:
        images = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        (found,) = session.run(None, {session.get_inputs()[0].name: images})
        expected = np.asarray(run(images))
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        if not difference < _TOLERANCE:
            raise ValueError(
                f"onnxruntime's outputs are off by {difference:.1e} of the largest; "
                "nothing was written. Please report the versions of jax, jax2onnx, onnxruntime."
            )
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from a warning about every shape it does not know."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
