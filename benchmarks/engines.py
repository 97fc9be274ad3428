"""Time a network against the strongest engines on CPU: ``python -m benchmarks.model --engines``.

VAN-LSKA-tiny, k = 23, 224 px: inference, folded on all sides, at batch 1, 8 and 32 and at batch 8
for k = 53, and loss with gradients at batch 8 and 32. Every contender is a process of its own, so
that no engine's threads meet another's; they take turns, and wait asleep. In its turn one computes
twice, and the second counts. Outputs, or losses, are compared before anything is timed.

- JAX: as the package runs it, in float32 and, folded, in bfloat16.
- PyTorch: eager, channels_last, and ``torch.compile``; for inference it has freezing on.
- onnxruntime and OpenVINO: of the file that ``lska-jax export --onnx`` writes; OpenVINO in float32
  and in bfloat16.

Each time is the median, with the least and the largest of all samples behind it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import names_by_vectors

NAME = "engines"
NAMES = WIDE, NARROW = names_by_vectors(NAME)
CHILD = "--serve"
JAX, JAX_BFLOAT16 = "JAX", "JAX bfloat16"
EAGER, COMPILED = "torch eager", "torch.compile"
RUNTIME, OPENVINO, OPENVINO_BFLOAT16 = "onnxruntime", "OpenVINO", "OpenVINO bfloat16"
INFERENCE = (JAX, EAGER, COMPILED, RUNTIME, OPENVINO, JAX_BFLOAT16, OPENVINO_BFLOAT16)
TRAIN = (JAX, EAGER, COMPILED)
BFLOAT16 = (JAX_BFLOAT16, OPENVINO_BFLOAT16)
EXPECTED = "15 to 25 minutes on two cores"
_PACKAGES = {
    EAGER: "torch",
    COMPILED: "torch",
    RUNTIME: "onnxruntime",
    OPENVINO: "openvino",
    OPENVINO_BFLOAT16: "openvino",
}
# Besides those that every benchmark states.
VERSIONS_OF = ("onnxruntime", "openvino")


class Case(NamedTuple):
    """What is timed; fields as in ``benchmarks.model.Case``."""

    mode: str
    batch_size: int
    k: int

    def describe(self) -> str:
        """Return the case in a few words."""
        return f"{self.mode}, batch {self.batch_size}, k = {self.k}"


CASES = (
    *(Case("inference", size, 23) for size in (1, 8, 32)),
    Case("inference", 8, 53),
    *(Case("train", size, 23) for size in (8, 32)),
)
QUICK = (Case("inference", 2, 7), Case("train", 2, 7))


def measure(*, is_quick: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for every case and contender that is installed."""
    from benchmarks.progress import Progress

    cases = QUICK if is_quick else CASES
    progress = Progress(len(cases))
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            progress.begin(f"{case.describe()}, starting")
            contenders = [name for name in _contenders(case) if _is_installed(name)]
            file = Path(folder) / f"{case.k}.onnx"
            if {RUNTIME, OPENVINO} & set(contenders) and not file.exists():
                _write_onnx(file, case, is_quick=is_quick)
            children = {}
            try:
                for name in contenders:
                    children[name] = _Child(name, case, file, is_quick=is_quick)
                _check_agreement(children)
                progress.begin(case.describe())
                yield from _time(case, children, show=progress.show)
            finally:
                for child in children.values():
                    child.end()
            progress.end()
    progress.close()


def _contenders(case: Case) -> tuple[str, ...]:
    return TRAIN if case.mode == "train" else INFERENCE


def _is_installed(contender: str) -> bool:
    import importlib.util

    package = _PACKAGES.get(contender)
    is_here = package is None or importlib.util.find_spec(package) is not None
    if not is_here:
        print(f"{contender} is left out: {package} is not installed.", flush=True)
    return is_here


def _time(
    case: Case, children: dict[str, "_Child"], *, show: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    from benchmarks import harness

    samples: dict[str, list[float]] = {name: [] for name in children}

    def call(name: str) -> Callable[[], float]:
        def run() -> float:
            samples[name].append(children[name].seconds())
            return samples[name][-1]

        return run

    timings = harness.measure_alternately(
        {name: call(name) for name in children},
        seconds_each=6.0,
        min_repetitions=10,
        max_repetitions=40,
        time_once=lambda run: run(),
        show=show,
    )
    for name, timing in timings.items():
        # Without those of the warm-up.
        kept = samples[name][-timing.repetitions * timing.calls :]
        yield {
            **case._asdict(),
            "contender": name,
            "seconds": statistics.median(kept),
            "least": min(kept),
            "largest": max(kept),
            "repetitions": len(kept),
        }


def _check_agreement(children: dict[str, "_Child"]) -> None:
    """Raise if contenders compute different logits or losses: then they are not comparable."""
    import numpy as np

    expected = children[JAX].output
    for name, child in children.items():
        error = np.abs(child.output - expected).max() / np.abs(expected).max()
        # As in ``benchmarks.model``.
        if not error < (0.1 if name in BFLOAT16 else 1e-4):
            raise ValueError(f"{name} differs by {error:.1e} of the largest value.")


class _Child:
    """A contender in a process of its own.

    Args:
      contender: its name.
      case: what it computes.
      file: the network as ONNX.
      is_quick: whether the network is a tiny one.

    Attributes:
      output: of the first call, float32.
    """

    def __init__(self, contender: str, case: Case, file: Path, *, is_quick: bool):
        import numpy as np

        words = [CHILD, contender, case.mode, str(case.batch_size), str(case.k), str(file)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.model", *words, *["--quick"] * is_quick],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.output = np.asarray(self._answer(), np.float32)

    def seconds(self) -> float:
        """Let it compute twice; return how long the second took."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A contender's process ended; what it said is above.")
        return json.loads(line)


def serve(words: list[str], *, is_quick: bool) -> None:
    """Be a contender's process: compute for every line that comes in, print the seconds."""
    import numpy as np

    from benchmarks import harness
    from lska_jax.running.inline_dispatch import use_inline_dispatch

    use_inline_dispatch()
    contender, mode, batch_size, k, file = words
    # Libraries print to standard output, which is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    case = Case(mode, int(batch_size), int(k))
    call = _call(contender, case, Path(file), is_quick=is_quick)
    out = call()
    first = out[0] if mode == "train" else out
    first = first.detach().float() if hasattr(first, "detach") else first
    answer(np.asarray(first, np.float32).tolist())
    for _ in sys.stdin:
        # Threads that slept while the others had their turn, and caches that these have filled.
        call()
        answer(harness.seconds_of(call))


def _call(contender: str, case: Case, file: Path, *, is_quick: bool) -> Callable[[], Any]:
    from benchmarks import networks
    from lska_jax.models.fold import fold_batch_norm

    size, classes = (32, 10) if is_quick else (224, 1000)
    images, labels = networks.random_batch(case.batch_size, size, classes)
    if contender in (RUNTIME, OPENVINO, OPENVINO_BFLOAT16):
        from lska_jax.tasks.engines import load_network

        engine = "onnxruntime" if contender == RUNTIME else "openvino"
        precision = "bf16" if contender in BFLOAT16 else "f32"
        return networks.bind(load_network(file.read_bytes(), engine, precision=precision), images)
    dtype = "bfloat16" if contender in BFLOAT16 else "float32"
    model = _build(case.k, is_quick=is_quick, dtype=dtype)
    if contender in (JAX, JAX_BFLOAT16):
        if case.mode == "train":
            return networks.jax_train_step(model, images, labels)
        return networks.jax_inference(fold_batch_norm(model), images)
    return _torch_call(model, case, images, labels, is_compiled=contender == COMPILED)


def _torch_call(
    model: Any, case: Case, images: Any, labels: Any, *, is_compiled: bool
) -> Callable[[], Any]:
    import torch

    from benchmarks import networks, torch_van
    from lska_jax.ops.processor import usable_cores

    torch.set_num_threads(usable_cores())
    layout = torch.channels_last
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    network = torch_van.torch_van(model)
    if case.mode == "train":
        network = network.to(memory_format=layout).train()
        run = torch.compile(network) if is_compiled else network
        targets, parameters = torch.from_numpy(labels).long(), list(network.parameters())

        def step() -> Any:
            loss = torch.nn.functional.cross_entropy(run(batch), targets)
            return loss, torch.autograd.grad(loss, parameters)

        return step
    network = torch_van.folded(network.eval()).to(memory_format=layout)
    if not is_compiled:
        return networks.bind(torch_van.inference, network, batch)
    from torch._inductor import config

    config.freezing = True
    compiled = torch.compile(network)

    def infer() -> Any:
        # Freezing wants no_grad, and knows nothing of inference_mode.
        with torch.no_grad():
            return compiled(batch)

    return infer


def _build(k: int, *, is_quick: bool, dtype: str = "float32") -> Any:
    from benchmarks.model import QUICK_ARCHITECTURE
    from lska_jax import create_model

    classes = 10 if is_quick else 1000
    architecture = QUICK_ARCHITECTURE if is_quick else {}
    return create_model("van_lska_tiny", k=k, num_classes=classes, dtype=dtype, **architecture)


def _write_onnx(file: Path, case: Case, *, is_quick: bool) -> None:
    from lska_jax.weights.export_onnx import export_onnx

    model = _build(case.k, is_quick=is_quick)
    file.write_bytes(export_onnx(model, image_size=32 if is_quick else 224))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Markdown tables, one a mode: medians, least to largest, and ratios over ours."""
    from benchmarks.results import NOT_YET_RUN, markdown_table

    found = {}
    for mode, contenders in (("inference", INFERENCE), ("train", TRAIN)):
        rows = [row for row in result["rows"] if row["mode"] == mode]
        cells: dict[tuple[int, int], dict[str, Any]] = {}
        for row in rows:
            cells.setdefault((row["k"], row["batch_size"]), {})[row["contender"]] = row
        lines = []
        for (k, batch_size), by_name in cells.items():
            ours = by_name[JAX]["seconds"]
            line = [str(k), str(batch_size)]
            for name in contenders:
                line.append(_shown(by_name[name]) if name in by_name else NOT_YET_RUN)
            best = [
                row["seconds"]
                for name, row in by_name.items()
                if name not in (JAX, JAX_BFLOAT16, OPENVINO_BFLOAT16)
            ]
            line.append(f"{min(best) / ours:.2f}" if best else NOT_YET_RUN)
            lines.append(line)
        header = ["k", "Batch", *(f"{name}, ms" for name in contenders)]
        header.append("JAX over the best float32")
        found[f"{result['benchmark']} {mode}"] = markdown_table(header, lines)
    return found


def _shown(row: dict[str, Any]) -> str:
    median, least, largest = (1e3 * row[name] for name in ("seconds", "least", "largest"))
    return f"{median:,.1f} ({least:,.1f} to {largest:,.1f})"
