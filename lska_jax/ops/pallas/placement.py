"""Where a kernel runs: on which platform as a kernel, and on which devices of a mesh.

XLA's partitioner cannot split a Pallas call, so in a program for several devices each device has to
be given its own images by ``jax.shard_map``. ``on_own_images`` does that over the mesh of the
context: a trainer that shards the batch over a mesh traces its step under ``jax.set_mesh(mesh)``
and changes nothing else. (``custom_partitioning`` would need no context, but its callbacks are not
registered on TPU, jax issue 38196.)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from lska_jax.ops.pallas.kernels import Interpret
from lska_jax.ops.platform import free_axes, free_devices, vary_alike


def by_platform(
    kernel: Callable[..., Any],
    interpret: Interpret | None,
    *arrays: jax.Array,
    platforms: Sequence[str] = ("tpu",),
) -> Any:
    """Run ``kernel(interpret, *arrays)``; None compiles it for its platforms, else interprets it.

    What counts is the platform that the program is compiled for, not the one that traces it.
    """
    if interpret is not None:
        return kernel(interpret, *arrays)
    return jax.lax.platform_dependent(
        *arrays,
        default=functools.partial(kernel, True),
        **{platform: functools.partial(kernel, False) for platform in platforms},
    )


def on_own_images(
    run: Callable[..., jax.Array], images: jax.Array, *parameters: jax.Array
) -> jax.Array:
    """Return ``run(images, *parameters)``, each device of the context's mesh on its own images.

    The batch is split over all axes of the mesh that no enclosing ``shard_map`` has split already,
    and the gradients of the parameters are summed over the devices. Without a mesh, or where the
    batch does not divide, ``run`` is called as it is.
    """
    # Axes of one device too: a kernel is refused while any axis is left to the partitioner.
    axes, batch = free_axes(), images.shape[0]
    if not axes or jax.sharding.get_abstract_mesh().size == 1 or batch % free_devices():
        return run(*vary_alike((images, *parameters)))
    split, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        run,
        in_specs=(split, *(whole for _ in parameters)),
        out_specs=split,
        axis_names=set(axes),
        # Pallas's interpreter does not follow which values vary.
        check_vma=False,
    )(images, *parameters)
