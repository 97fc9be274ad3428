"""Networks that another engine runs: ONNX files of this package, in onnxruntime or OpenVINO."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.weights.folder_files import object_of
from lska_jax.weights.model_facts import ModelFacts, facts_from_json
from lska_jax.weights.onnx_engines import ONNXRUNTIME, OPENVINO, load_outputs

JAX = "jax"
ENGINES = (JAX, ONNXRUNTIME, OPENVINO)
SUFFIX = ".onnx"
EXPORT_AGAIN = "Export it again: lska-jax export MODEL --onnx FILE."
_NEEDS = {ONNXRUNTIME: ("onnx", "onnxruntime"), OPENVINO: ("onnx", "openvino")}


def check_engine(engine: str) -> None:
    """Check that an engine is known and installed.

    Raises:
      ValueError: there is no such engine.
      ImportError: a package that it needs is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown; allowed: {', '.join(ENGINES)}.")
    packages = _NEEDS.get(engine, ())
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The engine {engine} needs {' and '.join(packages)} ({error}): pip install "
            f"{' '.join(packages)}."
        ) from error


def is_onnx_file(place: str | Path) -> bool:
    """Tell whether a place is an ONNX file, not a model folder."""
    path = Path(place)
    return path.suffix.lower() == SUFFIX and path.is_file()


def read_onnx_file(path: str | Path) -> tuple[ModelFacts, bytes]:
    """Return what an ONNX file says of its model, and its bytes.

    Its SHA-256 is verified; files of before have none.

    Raises:
      ImportError: onnx is not installed.
      ValueError: it is no ONNX file, none that ``lska-jax export`` wrote, or not as it was written;
        or what it says does not fit its network.
    """
    from lska_jax.weights.export_onnx import HASH, METADATA, hash_of

    onnx: Any = importlib.import_module("onnx")
    path = Path(path)
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    # protobuf's, whose class depends on how it was built.
    except Exception as error:
        raise ValueError(
            f"{path} is no ONNX file, or is damaged: {error}. {EXPORT_AGAIN}"
        ) from error
    # Bytes that are no text are no str.
    texts = {prop.key: str(prop.value) for prop in model.metadata_props}
    if METADATA not in texts:
        raise ValueError(
            f"{path} does not say how its images are prepared: lska-jax export did not write it, "
            f"or it is damaged. {EXPORT_AGAIN}"
        )
    stated = texts.get(HASH)
    if stated is not None and (found := hash_of(data, stated)) != stated:
        raise ValueError(
            f"{path} is not the file that was exported: its SHA-256 is {found}, it records "
            f"{stated}. {EXPORT_AGAIN}"
        )
    try:
        record = object_of(texts[METADATA].encode(), path)
        facts = facts_from_json(record, path.parent, name=path.name)
        _check_input(model.graph, facts, path)
    except ValueError as error:
        raise ValueError(f"{error} {EXPORT_AGAIN}") from error
    return facts, data


def load_network(
    data: bytes, engine: str, *, precision: str = "f32", name: str = "the network"
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from normalised images (B, S, S, C) float32 to logits (B, classes).

    Arguments and errors are those of ``load_outputs``; the file has one output.
    """
    outputs = load_outputs(data, engine, precision=precision, name=name)
    return lambda images: outputs(images)[0]


def _check_input(graph: Any, facts: ModelFacts, path: Path) -> None:
    inputs = [[d.dim_value for d in given.type.tensor_type.shape.dim] for given in graph.input]
    size, channels = facts.preprocessing.image_size, facts.config.in_channels
    if [sides[1:] for sides in inputs] != [[size, size, channels]]:
        raise ValueError(
            f"{path} is damaged: its metadata is for images (batch, {size}, {size}, {channels}), "
            f"its network takes {inputs}, with 0 for any length."
        )
