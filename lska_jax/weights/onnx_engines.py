"""What runs ONNX files: onnxruntime or OpenVINO, whichever is installed.

Both compute in float32 and on all cores. OpenVINO would otherwise take bfloat16 on processors that
have instructions for it, and answer with its rounding.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from lska_jax.ops.processor import usable_cores

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
# Of onnxruntime's levels: what fails is raised as well, and need not be logged.
_FATAL = 4

Outputs = Callable[[np.ndarray], list[np.ndarray]]


def find_engine() -> str:
    """Return an engine that is installed, to check files that are to be written.

    Raises:
      ImportError: onnx is not installed, or neither engine.
    """
    found = [e for e in (ONNXRUNTIME, OPENVINO) if importlib.util.find_spec(e)]
    if not found or not importlib.util.find_spec("onnx"):
        raise ImportError(
            "ONNX files need onnx to be written, and onnxruntime or openvino to be checked: pip "
            "install onnx onnxruntime, or onnx openvino (the extras 'onnx' and 'openvino' of this "
            "package)."
        )
    return found[0]


def load_outputs(
    data: bytes, engine: str, *, precision: str = "f32", name: str = "the network"
) -> Outputs:
    """Return a function from the input of an ONNX file to its outputs.

    Args:
      data: an ONNX file with one input.
      engine: "onnxruntime" or "openvino".
      precision: that OpenVINO computes in, "f32" or "bf16".
      name: of the file, for errors.

    Raises:
      ValueError: the engine cannot load it; the returned function: it cannot run it.
    """
    try:
        run = _in_onnxruntime(data) if engine == ONNXRUNTIME else _in_openvino(data, precision)
    # Each engine has its own errors, onnxruntime's with no base but Exception.
    except Exception as error:
        raise _refusal(engine, f"load {name}", error) from error

    def run_or_refuse(images: np.ndarray) -> list[np.ndarray]:
        try:
            return run(images)
        except Exception as error:
            raise _refusal(engine, f"run {name} on images {images.shape}", error) from error

    return run_or_refuse


def _in_onnxruntime(data: bytes) -> Outputs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = _FATAL
    session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images})


def _in_openvino(data: bytes, precision: str) -> Outputs:
    import openvino

    core: Any = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": usable_cores(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
    # Copies: the next call writes into the same memory.
    return lambda images: [np.array(output) for output in request.infer([images]).values()]


def _refusal(engine: str, what: str, error: Exception) -> ValueError:
    said = " ".join(str(error).split())
    return ValueError(
        f"{engine} cannot {what}: {said} The file is damaged or {engine} too old: export it again "
        f"with lska-jax export MODEL --onnx FILE, or update {engine}."
    )
