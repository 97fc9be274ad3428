"""Export a model's evaluation as ONNX, for onnxruntime and OpenVINO.

The network with its weights, folded where its family can be, in float32 and for any batch size. It
is traced with the grouped convolutions of ``lax``, which are one operation of ONNX each, and
written by ``onnx_operations``: no other exporter is needed. What was written is run by onnxruntime
and compared with the model before the file is put in place.

The file says in its metadata what the model is, as a model folder's config.json does, so that
``lska-jax predict FILE.onnx`` needs nothing else.
"""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lska_jax.weights.export_jax import portable_model
from lska_jax.weights.model_facts import ModelFacts, facts_to_json
from lska_jax.weights.onnx_graph import Graph, Value
from lska_jax.weights.onnx_operations import trace

INSTALL = "pip install onnx onnxruntime (the extra 'onnx' of this package)"
METADATA = "lska_jax"
OUTPUT = "logits"
# Of the largest output: float32 rounding of another runtime's sums; 2e-6 was seen.
_TOLERANCE = 1e-5
_CHECKED_BATCHES = (1, 3)


def export_onnx(
    model: Any, *, image_size: int | None = None, facts: ModelFacts | None = None
) -> bytes:
    """Return a model's evaluation as ONNX, compared with the model in onnxruntime.

    Args:
      model: of any family, not folded.
      image_size: side of the square images; None is that of the model's preprocessing.
      facts: what the file says of the model; None says its architecture and preprocessing.

    Returns:
      The ONNX file: images (batch, S, S, C) float32, normalised, to logits, or to what else the
      model returns.

    Raises:
      ImportError: onnx or onnxruntime is not installed.
      ValueError: the network has an operation that is not known here, or the exported network
        computes something else.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"ONNX needs onnx and onnxruntime ({error}): {INSTALL}.") from error
    facts = facts or ModelFacts(config=model.config, preprocessing=model.preprocessing)
    size = image_size or facts.preprocessing.image_size
    prepared = facts.preprocessing._replace(image_size=size)
    shape = (size, size, model.config.in_channels)
    folded = portable_model(model, dtype="float32")
    data = _write(onnx, folded, shape, dataclasses.replace(facts, preprocessing=prepared))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    run = jax.jit(lambda images: folded(images))
    for batch in _CHECKED_BATCHES:
        images = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        found = session.run(None, {session.get_inputs()[0].name: images})
        for got, expected in zip(found, jax.tree.leaves(run(images)), strict=True):
            expected = np.asarray(expected)
            difference = np.abs(got - expected).max() / np.abs(expected).max()
            if not difference < _TOLERANCE:
                raise ValueError(
                    f"onnxruntime's outputs are off by {difference:.1e} of the largest; nothing "
                    "was written. Please report the versions of jax, onnx and onnxruntime."
                )
    return data


def _write(onnx: Any, folded: Any, shape: tuple[int, ...], facts: ModelFacts) -> bytes:
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    traced, out = jax.make_jaxpr(lambda images: folded(images), return_shape=True)(images)
    graph = Graph(onnx, batch)
    given = Value("images", (batch, *shape), (0, 1, 2, 3))
    found = trace(graph, traced.jaxpr, traced.consts, [given])
    whole = [
        graph.whole(known, tuple(variable.shape))
        for known, variable in zip(found, jax.tree.leaves(out), strict=True)
    ]
    names = [OUTPUT] if len(whole) == 1 else [f"output_{n}" for n in range(len(whole))]
    record = json.loads(facts_to_json(facts, sha256="", size=0))
    record.pop("weights")
    metadata = {METADATA: json.dumps(record, ensure_ascii=False)}
    return graph.model((batch, *shape), dict(zip(names, whole, strict=True)), metadata=metadata)
