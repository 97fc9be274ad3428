"""Fused TPU kernels, written in Pallas. Compiled for TPU v5e and never run on one."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.ops.pallas.blocks import fits as fits
    from lska_jax.ops.pallas.chain import depthwise_chain as depthwise_chain

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "depthwise_chain": "lska_jax.ops.pallas.chain",
        "fits": "lska_jax.ops.pallas.blocks",
    },
)
