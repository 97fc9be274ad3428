"""What the cascade and a whole train step move and keep on a TPU, by formulation.

    python -m benchmarks.tpu_bytes                   # everything, 30 to 60 minutes
    python -m benchmarks.tpu_bytes --only cascade    # minutes
    python -m benchmarks.tpu_bytes --only step --step xla,pallas
    python -m benchmarks.tpu_bytes --only batches    # "auto" at other batches

Everything is compiled for TPU v5e by libtpu (pip install "jax[tpu]") and never run: the figures are
bytes, not seconds. Writes tpu_bytes.json and tpu_bytes.png; formulations that are not asked for
keep what the JSON already says.

- "bytes accessed" is XLA's own total: operands plus results of every operation, arrays padded to
  whole (8, 128) tiles, in HBM and in on-chip memory alike. Prefetching a slice counts the whole
  array; a Pallas call counts the maps, parameters and sums that its blocks read and write.
- "HBM bytes" are ours: the same sum over the optimised program, of buffers that the compiler
  placed in HBM only, slices as large as they are.
- relayouts are copies between two layouts of one array; "around calls" those next to a kernel.
"""

import argparse
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.results import DEFAULT_FOLDER, commit
from lska_jax.analysis import hlo
from lska_jax.analysis.tpu_compile import compile_for_tpu, compiled_cost
from lska_jax.models import van
from lska_jax.models.van_config import SIZES
from lska_jax.nn import attention, layers
from lska_jax.ops import depthwise_conv
from lska_jax.ops.pallas import depthwise_chain
from lska_jax.training import run as runs
from lska_jax.training import step as steps
from lska_jax.training.van_recipe import imagenet_config

TOPOLOGY = "v5e:2x2"
BATCH = 64
KERNELS = ((1, 5), (5, 1), (1, 7), (7, 1))  # k = 23
DILATIONS = (1, 1, 3, 3)
MAP_SIZES = (56, 28, 14, 7)
FORMULATIONS = ("xla", "shift", "toeplitz", "pallas")
# Images a chip of the train steps that "auto" is compared with lax at, with one block a stage: the
# operations of a block are what differs.
BATCHES = (8, 16, BATCH)
ONE_BLOCK_A_STAGE = (1, 1, 1, 1)
# Parts of the model and the classes that compute them, innermost last.
PARTS: dict[str, tuple[Any, str]] = {
    "head": (van.VAN, "head"),
    "attention": (van.Attention, "__call__"),
    "gate": (attention._DepthwiseGate, "__call__"),
    "FFN": (layers.ConvFFN, "__call__"),
    "patch embedding": (layers.PatchEmbedding, "__call__"),
    "BatchNorm": (layers.BatchNorm, "__call__"),
    "LayerNorm": (layers.LayerNorm, "__call__"),
    "layer scale": (layers.LayerScale, "__call__"),
    "drop path": (layers.DropPath, "__call__"),
    "1x1": (layers.Pointwise, "__call__"),
    "depth-wise": (layers.DepthwiseConv, "__call__"),
    "GELU": (van, "gelu"),
    "GELU of the FFN": (layers, "gelu"),
}


def main() -> None:
    """Compile, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the files")
    parser.add_argument("--only", choices=("cascade", "step", "batches"))
    parser.add_argument("--step", default=",".join(FORMULATIONS), help="formulations of the step")
    parser.add_argument("--models", default="base,tiny", help="whose stages the cascade takes")
    parser.add_argument("--depths", default="", help="blocks of each stage, to compile faster")
    arguments = parser.parse_args()
    path = arguments.out / "tpu_bytes.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    report.setdefault("conditions", {}).update(
        {
            "topology": TOPOLOGY,
            "batch_per_chip": BATCH,
            "dtype": "bfloat16",
            "k": 23,
            "jax": jax.__version__,
            "libtpu": _libtpu_version(),
            "run_on_hardware": "never: compiled only",
        }
    )
    print(json.dumps(report["conditions"]))
    if arguments.only in (None, "cascade"):
        for model in arguments.models.split(","):
            report.setdefault("cascade", {})[model] = _cascades(model)
            report["conditions"]["cascade_commit"] = commit()
        _write(report, path)
    _name_parts()
    if arguments.only in (None, "step"):
        depths = tuple(int(depth) for depth in arguments.depths.split(",") if depth)
        for formulation in arguments.step.split(","):
            report.setdefault("step", {})[formulation] = _step(formulation, depths)
            _write(report, path)
    if arguments.only in (None, "batches"):
        report["batches"] = []
        for batch in BATCHES:
            figures = {
                formulation: _step(formulation, ONE_BLOCK_A_STAGE, batch=batch)
                for formulation in ("xla", "auto")
            }
            report["batches"].append({"batch_per_chip": batch, **figures})
            _write(report, path)


def _cascades(model: str) -> list[dict[str, Any]]:
    rows = []
    for size, channels in zip(MAP_SIZES, SIZES[model].dims, strict=True):
        shape = (BATCH, size, size, channels)
        once = _map_bytes(shape)
        row: dict[str, Any] = {"shape": shape, "read_and_write_mb": 2 * once / 1e6}
        for formulation in FORMULATIONS:
            for part, with_gradients in (("forward", False), ("forward_backward", True)):
                figures = _cascade(shape, formulation, with_gradients)
                row[f"{formulation} {part}"] = figures
        lax = row["xla forward_backward"]["bytes_accessed_mb"]
        for formulation in FORMULATIONS:
            forward, both = (row[f"{formulation} {p}"] for p in ("forward", "forward_backward"))
            forward["over_read_and_write"] = round(forward["bytes_accessed_mb"] * 1e6 / 2 / once, 3)
            both["over_lax"] = round(both["bytes_accessed_mb"] / lax, 3)
            print(
                f"  {shape!s:<20}{formulation:<8} forward {forward['over_read_and_write']:6.2f} x "
                f"one read and write, forward + backward {both['over_lax']:5.2f} x lax "
                f"(relayouts {both['relayouts_mb']:.1f} MB, kernels {both['kernels_mb']:.1f} MB)"
            )
        rows.append(row)
    return rows


def _cascade(shape: tuple[int, ...], formulation: str, with_gradients: bool) -> dict[str, float]:
    channels = shape[-1]
    images = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    kernels = [jax.ShapeDtypeStruct((*size, 1, channels), jnp.float32) for size in KERNELS]
    biases = [jax.ShapeDtypeStruct((channels,), jnp.float32) for _ in KERNELS]
    run = functools.partial(_run_cascade, formulation)

    def run_both(images: Any, kernels: Any, biases: Any, gradient: Any) -> Any:
        out, pull_back = jax.vjp(run, images, kernels, biases)
        return out, pull_back(gradient)

    arguments = (images, kernels, biases)
    if with_gradients:
        return _figures(compile_for_tpu(run_both, *arguments, images, **_OPTIONS))
    return _figures(compile_for_tpu(run, *arguments, **_OPTIONS))


_OPTIONS: dict[str, Any] = {"topology": TOPOLOGY, "is_layout_free": True}


def _run_cascade(formulation: str, images: Any, kernels: Any, biases: Any) -> Any:
    if formulation == "pallas":
        return depthwise_chain(images, kernels, biases, dilations=DILATIONS)
    for kernel, bias, dilation in zip(kernels, biases, DILATIONS, strict=True):
        images = depthwise_conv(images, kernel, dilation=dilation, implementation=formulation)
        images = images + bias.astype(images.dtype)
    return images


def _step(formulation: str, depths: tuple[int, ...], *, batch: int = BATCH) -> dict[str, Any]:
    config = imagenet_config("lska", "base", None)
    config.model.dtype = "bfloat16"
    config.model.implementation = formulation
    config.model.depths = depths
    config.training.batch_size = config.training.eval_batch_size = batch
    run = runs.build_run(config, num_train_examples=1_281_167)
    step = functools.partial(
        steps.train_step,
        task=run.task,
        functions=run.functions,
        optimizer=run.optimizer,
        schedule=run.schedule,
        spec=run.spec,
    )
    images = runs.abstract_batch(run, batch)
    compiled = compile_for_tpu(step, run.state, images, topology=TOPOLOGY, donate_argnums=0)
    figures: dict[str, Any] = {"commit": commit(), **_figures(compiled)}
    executed = hlo.operations(compiled.as_text())
    figures["parts_gb"] = {
        part: {"all_memories": round(accessed / 1e9, 3), "hbm": round(hbm / 1e9, 3)}
        for part, (accessed, hbm) in hlo.bytes_by(executed, _part_of).items()
    }
    print(f"\ntrain step of VAN-LSKA-base {depths or ''}, {batch} images, {formulation}:")
    print(f"  { ({k: v for k, v in figures.items() if k != 'parts_gb'}) }")
    for part, gigabytes in figures["parts_gb"].items():
        print(f"  {part:<32}{gigabytes['all_memories']:8.2f}{gigabytes['hbm']:8.2f}")
    return figures


def _figures(compiled: jax.stages.Compiled) -> dict[str, float]:
    text, cost = compiled.as_text(), compiled_cost(compiled)
    executed = hlo.operations(text)
    moves = hlo.relayouts(executed, text)
    calls = [op for op in executed if op.target == "tpu_custom_call"]
    megabytes = {
        "bytes_accessed_mb": cost.bytes_accessed,
        "hbm_mb": sum(op.hbm_bytes for op in executed),
        "temporary_mb": cost.temporary_bytes,
        "kernels_mb": sum(op.bytes_accessed for op in calls),
        "relayouts_mb": sum(op.bytes_accessed for op in moves),
        "relayouts_around_kernels_mb": sum(
            op.bytes_accessed for op in hlo.around_custom_calls(executed, moves)
        ),
    }
    return {name: round(value / 1e6, 3) for name, value in megabytes.items()}


def _map_bytes(shape: tuple[int, ...]) -> int:
    """Return the bytes of a bfloat16 map as XLA keeps it: batch and channels in whole tiles."""
    batch, height, width, channels = shape
    return height * width * math.ceil(batch / 8) * 8 * math.ceil(channels / 128) * 128 * 2


def _name_parts() -> None:
    """Wrap the model's parts in named scopes, which the compiled program keeps."""
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, _in_scope(getattr(owner, name), _scope(part)))
    steps._gradients = _in_scope(steps._gradients, "part_model")


def _in_scope(function: Callable[..., Any], scope: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(scope):
            return function(*args, **kwargs)

    return call


def _scope(part: str) -> str:
    return "part_" + part.replace(" ", "_")


def _part_of(operation: hlo.Operation) -> str:
    """Return the innermost part whose scope an operation carries; a fusion carries its root's."""
    found = [(operation.scope.rfind(_scope(part)), len(part), part) for part in PARTS]
    position, _, part = max(found)
    if position >= 0:
        return part
    if operation.opcode in ("copy-start", "slice-start", "copy"):
        return "prefetches and copies"
    return "rest of the model" if "part_model" in operation.scope else "outside the model"


def _write(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    _draw(report, path.with_suffix(".png"))


def _draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    rows = report.get("cascade", {}).get("base", [])
    drawn = [name for name in FORMULATIONS if rows and f"{name} forward" in rows[0]]
    for number, formulation in enumerate(drawn):
        positions = [x + 0.2 * (number - 1.5) for x in range(len(rows))]
        heights = [row[f"{formulation} forward"]["over_read_and_write"] for row in rows]
        bars = left.bar(positions, heights, 0.19, label=formulation)
        left.bar_label(bars, fmt="%.1f", fontsize=8)
    left.set_xticks(
        range(len(rows)), [f"{r['shape'][1]}x{r['shape'][2]}x{r['shape'][3]}" for r in rows]
    )
    left.axhline(1, color="grey", linewidth=0.8)
    left.set_ylabel("bytes accessed over one read and write of the map")
    left.set_title("Cascade of VAN-LSKA-base, forward")
    left.legend()
    taken = report.get("step", {})
    for number, (figures, label) in enumerate(
        (
            (("bytes_accessed_mb"), "bytes accessed"),
            ("hbm_mb", "HBM bytes"),
            ("temporary_mb", "memory"),
        )
    ):
        positions = [x + 0.27 * (number - 1) for x in range(len(taken))]
        bars = right.bar(positions, [f[figures] / 1e3 for f in taken.values()], 0.25, label=label)
        right.bar_label(bars, fmt="%.1f", fontsize=8)
    right.set_xticks(range(len(taken)), list(taken))
    right.set_ylabel("GB")
    right.set_title(f"Train step of VAN-LSKA-base, {BATCH} images a chip")
    right.legend()
    figure.suptitle("Compiled for TPU v5e, never run")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _libtpu_version() -> str:
    from importlib.metadata import version

    return version("libtpu")


if __name__ == "__main__":
    main()
