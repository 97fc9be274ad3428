"""Networks that another engine runs: ONNX files of this package, in onnxruntime or OpenVINO.

Both compute in float32 and on all cores. OpenVINO would otherwise take bfloat16 on processors that
have instructions for it, and answer with its rounding.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.ops.processor import usable_cores
from lska_jax.weights.model_facts import ModelFacts, facts_from_json

JAX, ONNXRUNTIME, OPENVINO = "jax", "onnxruntime", "openvino"
ENGINES = (JAX, ONNXRUNTIME, OPENVINO)
SUFFIX = ".onnx"
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

    Raises:
      ImportError: onnx is not installed.
      ValueError: it is no ONNX file, or none that ``lska-jax export`` wrote.
    """
    from lska_jax.weights.export_onnx import METADATA

    onnx: Any = importlib.import_module("onnx")
    data = Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    # protobuf's, whose class depends on how it was built.
    except Exception as error:
        raise ValueError(f"{path} is no ONNX file, or is damaged: {error}") from error
    texts = {prop.key: prop.value for prop in model.metadata_props}
    try:
        record = json.loads(texts[METADATA])
    except KeyError:
        raise ValueError(
            f"{path} does not say how its images are prepared: lska-jax export did not write it."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts_from_json(record, Path(path)), data


def load_network(
    data: bytes, engine: str, *, precision: str = "f32"
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from normalised images (B, S, S, C) float32 to logits (B, classes).

    Args:
      data: an ONNX file with one output.
      engine: "onnxruntime" or "openvino".
      precision: that OpenVINO computes in, "f32" or "bf16".
    """
    package: Any = importlib.import_module(engine)
    if engine == ONNXRUNTIME:
        options = package.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = package.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        return lambda images: session.run(None, {given.name: images})[0]
    core = package.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": usable_cores(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    network = core.compile_model(core.read_model(data), "CPU", settings)
    request = network.create_infer_request()
    # A copy: the next call writes into the same memory.
    return lambda images: np.array(request.infer([images])[0])
