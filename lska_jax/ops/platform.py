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
    """Tell whether operations that exist as one fused TPU kernel are to be run as that.

    By name, but on GPU, which has a kernel for single convolutions only. With "auto" on TPU.

    Args:
      implementation: as in ``depthwise_conv``.
    """
    if implementation == "auto":
        return target_platform() == "tpu" and can_split_kernels()
    return implementation == "pallas" and target_platform() != "gpu"


def can_split_kernels() -> bool:
    """Tell whether a kernel in the program under trace runs on every device on its own images.

    A kernel is opaque to the compiler's partitioner: with several devices ``jax.set_mesh`` has to
    say how to split.
    """
    return not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1
