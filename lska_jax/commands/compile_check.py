"""``lska-jax compile-check``: compile a run's steps for devices that are not here."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lska_jax.commands import frame
from lska_jax.commands.config_option import add_config_option

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_DESCRIPTION = """\
Compile a run's steps for devices that are not here; say what they need and whether they fit.

These are the steps that training compiles, from the same functions, over the mesh of a topology.
For TPUs libtpu compiles them, on any machine (extra "tpu"). For GPUs they are lowered and exported:
memory and collectives are known to a GPU's compiler only, and are not reported. Nothing is run and
no data is read.

Exit status: 0 if everything fits, 1 if a step does not, 2 after a mistake."""

_EXAMPLES = (
    "lska-jax compile-check --config van_lska_base --topology v5e:4x4",
    "lska-jax compile-check --config van_lska_base:35 --topology cuda:8 --only train",
    "lska-jax compile-check --config van_lska_tiny --topology v5e:2x2 --find_batch 8",
)
STEPS = ("train", "evaluation")
# Only the number of steps depends on it, and that is no part of a step.
_TRAIN_EXAMPLES = 1_281_167
_GPU = re.compile(r"(cuda|gpu|rocm)(?::(\d+))?")
_TPU = re.compile(r"\w+:\d+(x\d+){1,2}")
_SECONDS_BETWEEN_LINES = 30.0
_DEFAULT_TOPOLOGY = "v5e:4x4"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _check, argv)


def _check(arguments: argparse.Namespace) -> int:
    from lska_jax.training.config_check import check_config

    check_config(arguments.config)
    # Whatever this machine has is not what the steps are for.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    result = check(
        arguments.config,
        topology=arguments.topology,
        steps=[arguments.only] if arguments.only else STEPS,
        find_batch=arguments.find_batch,
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["fits"] is False else 0


def check(
    config: ConfigDict, *, topology: str, steps: Any = STEPS, find_batch: int = 0
) -> dict[str, Any]:
    """Compile a config's steps for a topology and print what they need.

    Args:
      config: checked by ``lska_jax.training.config_check.check_config``.
      topology: a TPU topology, "v5e:4x4", or GPUs, "cuda:8".
      steps: which of ``STEPS``.
      find_batch: instead search the largest training batch that fits, from the config's on, to
        multiples of so many images a device; 0 does not.

    Returns:
      What was printed, for JSON; "fits" is None where that cannot be known.

    Raises:
      ValueError: an unknown topology, or batches that do not fit its devices.
      ImportError: libtpu is missing.
    """
    gpus = _GPU.fullmatch(topology)
    count = int(gpus[2] or 1) if gpus else 1
    if count < 1 or (gpus is None and not _TPU.fullmatch(topology)):
        raise ValueError(
            f"--topology={topology!r} is not understood; allowed: a TPU topology, as in v5e:4x4, "
            "or cuda:NUMBER."
        )
    if gpus:
        platform = "rocm" if gpus[1] == "rocm" else "cuda"
        return _check_gpu(config, platform, count, steps)
    return _check_tpu(config, topology, steps, find_batch)


def _check_tpu(config: ConfigDict, topology: str, steps: Any, find_batch: int) -> dict[str, Any]:
    from lska_jax.analysis.chips import CHIPS
    from lska_jax.analysis.tpu_compile import tpu_devices
    from lska_jax.training.config_check import check_against_devices

    devices = tpu_devices(topology)
    chip = CHIPS.get(devices[0].device_kind)
    result = {
        "topology": topology,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "hosts": 1 + max(device.process_index for device in devices),
        "device_memory_bytes": chip.hbm_bytes if chip else None,
        **_versions("jax", "libtpu"),
    }
    memory = f"{chip.hbm_bytes / 2**30:g} GiB each ({chip.source})" if chip else "memory unknown"
    print(f"{topology}: {len(devices)} x {devices[0].device_kind}, {memory}")
    if find_batch:
        if chip is None:
            raise ValueError(f"The memory of {devices[0].device_kind} is not known to chips.py.")
        largest = _find_batch(config, devices, chip.hbm_bytes, find_batch)
        return {**result, "largest_batch_per_device": largest, "fits": largest > 0}
    check_against_devices(config, device_count=len(devices))
    result["config"] = _facts(config, len(devices))
    for step in steps:
        report = _compile(config, devices, step)
        _print_report(step, report, chip.hbm_bytes if chip else None)
        result[step] = {**vars(report), "total_bytes": report.total_bytes}
    return {**result, "fits": all(result[step]["fits"] for step in steps)}


def _compile(config: ConfigDict, devices: Any, step: str) -> Any:
    from lska_jax.analysis.step_report import report_step
    from lska_jax.running import parallel
    from lska_jax.training import run as building

    batch = config.training.batch_size if step == "train" else config.training.eval_batch_size
    with _progress(f"compiling the {step} step, {batch // len(devices)} images a device"):
        mesh = parallel.make_mesh(fsdp=config.training.fsdp, devices=devices)
        run = building.build_run(config, num_train_examples=_TRAIN_EXAMPLES, mesh=mesh)
        program = building.train_program if step == "train" else building.eval_program
        return report_step(program(run))


def _find_batch(config: ConfigDict, devices: Any, capacity: int, images: int) -> int:
    from lska_jax.analysis.step_report import largest_that_fits

    training = config.training
    unit = math.lcm(images, training.gradient_accumulation)
    start = max(unit, training.batch_size // len(devices) // unit * unit)

    def bytes_of(batch: int) -> int | None:
        with config.unlocked():
            training.batch_size = training.eval_batch_size = batch * len(devices)
        report = _compile(config, devices, "train")
        used = f"{report.total_bytes / 2**30:.2f} GiB" if report.fits else report.refusal
        print(f"{batch} images a device: {'fits' if report.fits else 'does not fit'}, {used}")
        return report.total_bytes if report.fits else None

    largest = largest_that_fits(bytes_of, start=start, capacity=capacity, unit=unit)
    print(
        f"The largest batch that fits: {largest} images a device, "
        f"--config.training.batch_size={largest * len(devices)}"
    )
    return largest


def _check_gpu(config: ConfigDict, platform: str, count: int, steps: Any) -> dict[str, Any]:
    from lska_jax.running import parallel
    from lska_jax.training import run as building
    from lska_jax.training.config_check import check_against_devices

    check_against_devices(config, device_count=count)
    mesh = parallel.abstract_mesh(device_count=count, platform=platform, fsdp=config.training.fsdp)
    run = building.build_run(config, num_train_examples=_TRAIN_EXAMPLES, mesh=mesh)
    result: dict[str, Any] = {
        "topology": f"{platform}:{count}",
        "devices": count,
        "config": _facts(config, count),
        "fits": None,
        **_versions("jax"),
    }
    print(f"{platform}:{count}, lowered and exported, not compiled")
    for step in steps:
        program = (building.train_program if step == "train" else building.eval_program)(run)
        with _progress(f"lowering the {step} step"):
            exported = program.export(platform)
        figures = {
            "argument_bytes": _bytes_on_a_device(program.arguments),
            "stablehlo_bytes": len(exported.mlir_module_serialized),
            "devices": exported.nr_devices,
        }
        result[step] = figures
        print(
            f"{step} step: exports for {exported.nr_devices} {platform} device(s), "
            f"{figures['stablehlo_bytes'] / 1e6:.2f} MB of StableHLO; arguments "
            f"{figures['argument_bytes'] / 1e6:,.1f} MB a device. Temporary memory and "
            "collectives: known to the GPU's compiler only."
        )
    return result


def _bytes_on_a_device(arguments: Any) -> int:
    import jax

    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(arguments)
    )


def _print_report(step: str, report: Any, capacity: int | None) -> None:
    print(f"\n{step} step, for each device (compiled in {report.compile_seconds:.0f} s)")
    if not report.fits:
        print(f"  does not fit: {report.refusal}")
        return
    rows = [
        ("arguments", f"{report.argument_bytes / 1e6:,.1f} MB"),
        ("temporaries", f"{report.temporary_bytes / 1e6:,.1f} MB"),
        ("outputs beyond donated", f"{report.output_bytes / 1e6:,.1f} MB"),
        ("program", f"{report.code_bytes / 1e6:,.1f} MB"),
        ("FLOPs", f"{report.flops / 1e9:,.1f} G (XLA's count)"),
        ("bytes accessed", f"{report.bytes_accessed / 1e9:,.2f} GB (XLA's count)"),
    ]
    for kind, sums in report.collectives.items():
        rows.append((kind, f"{sums['count']:,} x, {sums['bytes'] / 1e6:,.2f} MB put in"))
    if not report.collectives:
        rows.append(("collectives", "none"))
    total = f"{report.total_bytes / 2**30:.2f} GiB"
    if capacity is not None:
        total += f" of {capacity / 2**30:g} GiB ({report.total_bytes / capacity:.0%})"
    rows.append(("fits", total))
    for name, value in rows:
        print(f"  {name:<24}{value}")


def _facts(config: ConfigDict, count: int) -> dict[str, Any]:
    from lska_jax.training import run as building

    training, model = config.training, config.model
    facts = {
        "model": f"{building.describe_model(config)}, {model.dtype}",
        "image_size": config.data.image_size,
        "batch_size": training.batch_size,
        "batch_per_device": training.batch_size // count,
        "eval_batch_size": training.eval_batch_size,
        "gradient_accumulation": training.gradient_accumulation,
        "fsdp": training.fsdp,
        "remat": model.get("remat", False),
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    return facts


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}


@contextlib.contextmanager
def _progress(description: str) -> Iterator[None]:
    """Say what goes on, at the start and every half minute: a compilation takes minutes."""
    started, finished = time.monotonic(), threading.Event()

    def tick() -> None:
        while not finished.wait(_SECONDS_BETWEEN_LINES):
            seconds = time.monotonic() - started
            print(f"{description} | {seconds:.0f} s", file=sys.stderr, flush=True)

    print(f"{description} ...", file=sys.stderr, flush=True)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        finished.set()
        ticker.join()


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax compile-check", _DESCRIPTION, examples=_EXAMPLES)
    add_config_option(parser)
    add = parser.add_argument
    add(
        "--topology",
        default=_DEFAULT_TOPOLOGY,
        metavar="NAME",
        help=f"such as v5e:4x4 or cuda:8 (default: {_DEFAULT_TOPOLOGY})",
    )
    add(
        "--find_batch",
        type=frame.whole_number,
        default=0,
        metavar="N",
        help="find the largest training batch that fits, to multiples of N images per device",
    )
    add("--json", metavar="FILE", help="also write the figures to this file")
    add("--only", choices=STEPS, help="check one step only")
    return parser
