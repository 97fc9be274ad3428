"""Export a model's evaluation as ONNX, for onnxruntime and OpenVINO.

The network with its weights, folded where its family can be, in float32 and for any batch size. It
is traced with the grouped convolutions of ``lax``, which are one operation of ONNX each, and
written by ``onnx_operations``: no other exporter is needed. What was written is run by onnxruntime
or OpenVINO and compared with the model before the file is put in place.

The file says in its metadata what the model is, as a model folder's config.json does, so that
``lska-jax predict FILE.onnx`` needs nothing else, and the SHA-256 of all its other bytes.
"""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lska_jax.weights.export_jax import portable_model
from lska_jax.weights.model_facts import HASH_KEY, ModelFacts, facts_to_json
from lska_jax.weights.onnx_engines import find_engine, load_outputs
from lska_jax.weights.onnx_graph import Graph, Value
from lska_jax.weights.onnx_operations import trace

METADATA = "lska_jax"
HASH = "lska_jax_sha256"
_NO_HASH = "0" * 64
OUTPUT = "logits"
# Of the largest output: float32 rounding of another runtime's sums; 1.3e-6 was seen at 224 pixels.
_TOLERANCE = 1e-5
_CHECKED_BATCHES = (1, 3)


def export_onnx(
    model: Any,
    *,
    image_size: int | None = None,
    facts: ModelFacts | None = None,
    engine: str | None = None,
) -> bytes:
    """Return a model's evaluation as ONNX, compared with the model in an engine.

    Args:
      model: of any family, not folded.
      image_size: side of the square images; None is that of the model's preprocessing.
      facts: what the file says of the model; None says its architecture and preprocessing.
      engine: that runs it for the comparison, "onnxruntime" or "openvino"; None is one that is
        installed.

    Returns:
      The ONNX file: images (batch, S, S, C) float32, normalised, to logits, or to what else the
      model returns.

    Raises:
      ImportError: onnx is not installed, or no engine.
      ValueError: the network has an operation that is not known here, or the exported network
        computes something else.
    """
    engine = engine or find_engine()
    import onnx

    facts = facts or ModelFacts(config=model.config, preprocessing=model.preprocessing)
    size = image_size or facts.preprocessing.image_size
    prepared = facts.preprocessing._replace(image_size=size)
    shape = (size, size, model.config.in_channels)
    folded = portable_model(model, dtype="float32")
    data = _write(onnx, folded, shape, dataclasses.replace(facts, preprocessing=prepared))
    outputs = load_outputs(data, engine)
    run = jax.jit(lambda images: folded(images))
    for batch in _CHECKED_BATCHES:
        images = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        for got, expected in zip(outputs(images), jax.tree.leaves(run(images)), strict=True):
            expected = np.asarray(expected)
            difference = np.abs(got - expected).max() / np.abs(expected).max()
            if not difference < _TOLERANCE:
                raise ValueError(
                    f"{engine}'s outputs are off by {difference:.1e} of the largest; nothing "
                    f"was written. Please report the versions of jax, onnx and {engine}."
                )
    return data


def hash_of(data: bytes, stated: str) -> str:
    """Return the SHA-256, in hexadecimal, of an ONNX file without the hash that it states."""
    return hashlib.sha256(data.replace(stated.encode(), b"")).hexdigest()


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
    # Of a folder's files.
    for name in ("weights", HASH_KEY):
        del record[name]
    metadata = {METADATA: json.dumps(record, ensure_ascii=False), HASH: _NO_HASH}
    data = graph.model((batch, *shape), dict(zip(names, whole, strict=True)), metadata=metadata)
    # The last of the metadata, which is behind all else.
    before, _, after = data.rpartition(_NO_HASH.encode())
    return before + hashlib.sha256(before + after).hexdigest().encode() + after
