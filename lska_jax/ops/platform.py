"""Which kind of device the program under trace is for, and whether fused TPU kernels suit it."""

from collections.abc import Sequence

import jax


def target_platform() -> str:
    """Return "cpu", "gpu" or "tpu".

    The mesh of ``jax.set_mesh`` decides where there is one, so that a program can be traced for a
    TPU topology on a machine without any; otherwise JAX's default backend.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def takes_pallas(implementation: str | Sequence[str]) -> bool:
    """Tell whether operations that exist as one TPU kernel are to be run as that.

    By name always. With "auto" on TPU, unless there are several devices and no mesh in context: a
    kernel is opaque to the compiler's partitioner, and ``jax.set_mesh`` tells it how to split.

    Args:
      implementation: as in ``depthwise_conv``.
    """
    if implementation == "auto":
        has_mesh = not jax.sharding.get_abstract_mesh().empty
        return target_platform() == "tpu" and (has_mesh or jax.device_count() == 1)
    return implementation == "pallas"
