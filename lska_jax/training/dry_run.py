"""What a run would be and cost, without computing a parameter or reading an image."""

import math
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from lska_jax.tasks.table import task_entry
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import tree_bytes

# Only the number of steps depends on them, and only where the data is not here.
_ASSUMED = {
    "detection": (117_266, "COCO's train2017 without images that have no annotations"),
    "segmentation": (20_210, "ADE20K's training images"),
}
_ASSUMED_ELSE = (1_281_167, "ImageNet-1K")


def describe_run(config: ConfigDict, *, report: Callable[[str], None] = lambda text: None) -> str:
    """Compile a config's steps abstractly and return their sizes and costs as text.

    Args:
      config: checked by ``training.config_check.check_config``. Its data may be missing on
        this machine; steps are then counted for ImageNet-1K, COCO or ADE20K, and the text says so.
      report: told what is waited for, one line each.

    Raises:
      ValueError: the batches or the mesh do not fit the devices.
    """
    examples, origin = _count_examples(config)
    run = building.build_run(config, num_train_examples=examples)
    report("compiling the train step ...")
    train_step = building.train_program(run).compile()
    report("compiling the evaluation step ...")
    eval_step = building.eval_program(run).compile()
    training, devices = config.training, jax.devices()
    rows = [
        ("model", f"{building.describe_model(config)}, {config.model.dtype}"),
        ("parameters", f"{sum(math.prod(x.shape) for x in run.state.params.values()):,}"),
        ("devices", f"{len(devices)} x {devices[0].device_kind}"),
        ("mesh", ", ".join(f"{name}={size}" for name, size in run.mesh.shape.items())),
        ("training examples", f"{examples:,} ({origin})"),
        ("global batch", f"{training.batch_size} ({training.batch_size // len(devices)} a device)"),
        ("steps", f"{run.total_steps:,} ({run.steps_per_epoch:,} an epoch)"),
        ("train state", f"{tree_bytes(run.state) / 1e6:,.1f} MB over all devices"),
        *_costs("train step", train_step, training.batch_size, len(devices)),
        *_costs("evaluation step", eval_step, training.eval_batch_size, len(devices)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _count_examples(config: ConfigDict) -> tuple[int, str]:
    data = config.data
    try:
        facts = task_entry(config).inspect(config, data.source, data.train_split)
    except ValueError:
        count, name = _ASSUMED.get(config.task, _ASSUMED_ELSE)
        return count, f"data not found here, assuming {name}"
    return facts.num_examples, data.source


def _costs(name: str, compiled: Any, batch_size: int, num_devices: int) -> list[tuple[str, str]]:
    flops = (compiled.cost_analysis() or {}).get("flops")
    memory = compiled.memory_analysis()
    rows = []
    if flops and flops > 0:
        # XLA counts one device's program.
        total = flops * num_devices
        rows.append(
            (
                f"{name} FLOPs",
                f"{total / 1e9:,.1f} G, {total / batch_size / 1e9:,.2f} G an image (XLA's count)",
            )
        )
    if memory is not None:
        parts = {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs beyond donated": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        }
        listed = ", ".join(f"{part} {size / 1e6:,.1f} MB" for part, size in parts.items())
        rows.append((f"{name} memory a device", listed))
    return rows
