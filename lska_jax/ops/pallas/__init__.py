"""Kernels written in Pallas: TPU's, fused, compiled and never run there; GPU's, which ran."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.ops.pallas.attention import fused_attention as fused_attention
    from lska_jax.ops.pallas.attention_cost import attention_fits as attention_fits
    from lska_jax.ops.pallas.blocks import fits as fits
    from lska_jax.ops.pallas.chain import depthwise_chain as depthwise_chain
    from lska_jax.ops.pallas.ffn import conv_ffn as conv_ffn
    from lska_jax.ops.pallas.ffn import ffn_fits as ffn_fits

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "attention_fits": "lska_jax.ops.pallas.attention_cost",
        "conv_ffn": "lska_jax.ops.pallas.ffn",
        "depthwise_chain": "lska_jax.ops.pallas.chain",
        "ffn_fits": "lska_jax.ops.pallas.ffn",
        "fits": "lska_jax.ops.pallas.blocks",
        "fused_attention": "lska_jax.ops.pallas.attention",
    },
)
