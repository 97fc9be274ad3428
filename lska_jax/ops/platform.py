"""What the program under trace is for: platform, mesh, and whether Pallas kernels suit it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jax.typing import DTypeLike

# The sublanes of a tile.
LEAST_IMAGES_ON_TPU = 8


def target_platform() -> str:
    """Return "cpu", "gpu", "tpu", or what else JAX calls its backend.

    The mesh of ``jax.set_mesh`` decides where there is one, so that a program can be traced for a
    TPU topology on a machine without any; otherwise JAX's default backend.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def is_on_one_device() -> bool:
    """Tell whether the program under trace is for one device, and no axis of its mesh Explicit."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.device_count() == 1
    return math.prod(mesh.shape.values()) == 1 and AxisType.Explicit not in mesh.axis_types


def dtype_between(dtype: DTypeLike) -> DTypeLike:
    """Return the dtype of maps that one fused loop hands to the next operation, never kept.

    The compute dtype, but on CPU float32: XLA computes in it anyway, and rounding to bfloat16, for
    which it has no instruction, takes longer than the bytes that it saves.
    """
    return jnp.float32 if target_platform() == "cpu" else dtype


def varying_axes(array: jax.Array) -> frozenset[Any]:
    """Return the axes of an enclosing shard_map that an array differs along."""
    return jax.typeof(array).manual_axis_type.varying


def vary_alike(arrays: Any) -> Any:
    """Mark all arrays of a tree as varying over the same axes of an enclosing shard_map.

    An operation with gradients of its own needs that: what is replicated has a gradient that
    varies, and the transpose of the mark sums it over the devices.
    """
    axes = frozenset[Any]().union(*map(varying_axes, jax.tree.leaves(arrays)))
    if not axes:
        return arrays

    def mark(array: jax.Array) -> jax.Array:
        missing = axes - varying_axes(array)
        return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array

    return jax.tree.map(mark, arrays)


def takes_pallas(implementation: str | Sequence[str], *, batch: Any, dtype: DTypeLike) -> bool:
    """Tell whether operations that exist as one fused TPU kernel are to be run as that.

    With "pallas", except on GPU, which has a kernel for single convolutions only; with "auto" on
    TPU where kernels suit the images.

    Args:
      implementation: as in ``depthwise_conv``.
      batch: images; with a name it may be symbolic, as an export has it.
      dtype: of the images.
    """
    if batch == 0:
        return False  # no block to compute with
    if implementation == "auto":
        return target_platform() == "tpu" and can_place_kernels(batch, dtype)
    return implementation == "pallas" and target_platform() != "gpu"


def can_place_kernels(batch: Any, dtype: DTypeLike) -> bool:
    """Tell whether a kernel in the program under trace suits such images.

    It is opaque to the compiler's partitioner: with several devices ``jax.set_mesh`` has to say how
    to split, along axes of type Auto, and every device needs the same number of images. On TPU the
    batch lies in the sublanes: of fewer images than those most of a tile would be padding. In
    float32 XLA copies maps into another order around the kernels, or they gain little
    (docs/performance.md).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if (mesh.empty and jax.device_count() > 1) or AxisType.Explicit in mesh.axis_types:
        return False
    if not isinstance(batch, int):
        return False  # an export's symbolic batch may turn out to be anything
    if target_platform() == "tpu" and (
        jnp.dtype(dtype) != jnp.bfloat16 or images_of_a_device(batch) < LEAST_IMAGES_ON_TPU
    ):
        return False
    return batch % free_devices() == 0


def explicit_spec_of(array: jax.Array) -> PartitionSpec | None:
    """Return how an array is split where the mesh in context has axes of type Explicit, else None.

    A product that sums over such axes needs to know how its result is split: the gradient of a
    parameter as the parameter.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Explicit not in mesh.axis_types:
        return None
    spec = jax.typeof(array).sharding.spec
    return PartitionSpec(*spec, *[None] * (array.ndim - len(spec)))


def free_axes() -> tuple[str, ...]:
    """Return the axes of the mesh in context that no enclosing shard_map has split."""
    mesh = jax.sharding.get_abstract_mesh()
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in types if kind != AxisType.Manual)


def images_of_a_device(batch: int) -> int:
    """Return how many of a batch's images a kernel gets on a device: all if they do not divide."""
    devices = free_devices()
    return batch if batch % devices else batch // devices


def free_devices() -> int:
    """Return how many devices the ``free_axes`` span."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[name] for name in free_axes())
