"""Where a kernel runs: on which platform as a kernel, and on which devices of a mesh.

A Pallas call is opaque to XLA's partitioner, which refuses it in a program for several devices.
``partitionable`` tells the partitioner that the batch can be split: under plain ``jax.jit`` over
sharded arrays every device then runs the kernel on its own images.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from lska_jax.ops.pallas.kernels import varying_axes


def by_platform(kernel: Callable[..., Any], interpret: bool | None, *arrays: jax.Array) -> Any:
    """Run ``kernel(interpret, *arrays)``; None compiles it for TPU and interprets it elsewhere.

    What counts is the platform that the program is compiled for, not the one that traces it.
    """
    if interpret is not None:
        return kernel(interpret, *arrays)
    return jax.lax.platform_dependent(
        *arrays, tpu=functools.partial(kernel, False), default=functools.partial(kernel, True)
    )


def partitionable(
    run: Callable[..., tuple[jax.Array, ...]],
    *,
    maps: tuple[int, int],
    sums: int,
    rule: str,
    whole: str,
) -> Any:
    """Let XLA's partitioner split a function over the batch, and over channels where they stay apart.

    Args:
      run: (maps..., parameters...) -> (maps..., sums over the batch...), maps (B, H, W, C).
      maps: how many arguments and results are maps.
      sums: how many results are sums over the batch; devices' sums are added.
      rule: dimensions of arguments and results by letters, ``b`` the batch, ``c`` the channels.
      whole: letters of dimensions that must not be split.
    """
    partitioned = custom_partitioning(run)
    arguments, results = (side.split(", ") for side in rule.split(" -> "))

    def partition(mesh: Any, argument_shapes: Any, result_shapes: Any) -> Any:
        spec = argument_shapes[0].sharding.spec
        axes = {"b": spec[0], "c": None if "c" in whole else spec[3]}

        def placed(letters: str) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(*(axes.get(x) for x in letters.split())))

        def on_one_device(*shards: jax.Array) -> tuple[jax.Array, ...]:
            outputs = run(*shards)
            if axes["b"] is None or not sums:
                return outputs
            added = (jax.lax.psum(total, axes["b"]) for total in outputs[maps[1] :])
            return *outputs[: maps[1]], *added

        return mesh, on_one_device, tuple(map(placed, results)), tuple(map(placed, arguments))

    partitioned.def_partition(
        partition, sharding_rule=rule, need_replication_factors=tuple(whole)
    )
    return partitioned


def mark_as_varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Mark arrays as varying over the same axes of a shard_map; its transpose sums gradients."""
    axes = frozenset[Any]().union(*map(varying_axes, arrays))
    return tuple(
        jax.lax.pcast(array, tuple(missing), to="varying")
        if (missing := axes - varying_axes(array))
        else array
        for array in arrays
    )
