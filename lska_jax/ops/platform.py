"""Which kind of device the program under trace is for, and whether fused TPU kernels suit it."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType

LEAST_IMAGES_ON_TPU = 8


def target_platform() -> str:
    """Return "cpu", "gpu" or "tpu".

    The mesh of ``jax.set_mesh`` decides where there is one, so that a program can be traced for a
    TPU topology on a machine without any; otherwise JAX's default backend.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def takes_pallas(implementation: str | Sequence[str], *, batch: int) -> bool:
    """Tell whether operations that exist as one fused TPU kernel are to be run as that.

    By name, but on GPU, which has a kernel for single convolutions only. With "auto" on TPU.

    Args:
      implementation: as in ``depthwise_conv``.
      batch: images.
    """
    if implementation == "auto":
        return target_platform() == "tpu" and can_place_kernels(batch)
    return implementation == "pallas" and target_platform() != "gpu"


def can_place_kernels(batch: int) -> bool:
    """Tell whether a kernel in the program under trace suits images of such a batch.

    It is opaque to the compiler's partitioner: with several devices ``jax.set_mesh`` has to say how
    to split, and every device needs as many images. On TPU the batch lies in the sublanes: fewer
    images than those would be padded.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty and jax.device_count() > 1:
        return False
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    devices = math.prod(mesh.shape[name] for name, kind in types if kind != AxisType.Manual)
    least = LEAST_IMAGES_ON_TPU if target_platform() == "tpu" else 1
    return batch % devices == 0 and batch // devices >= least
