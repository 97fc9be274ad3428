"""Kernels written in Pallas: TPU's, fused, compiled and never run there; GPU's, which ran.

Pallas takes a seventh of a second to import, and CPUs never run a kernel: the functions below
import theirs when they are called.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lska_jax.ops.pallas.blocks import fits as fits

if TYPE_CHECKING:
    from lska_jax.ops.pallas.attention import fused_attention as fused_attention
    from lska_jax.ops.pallas.attention_cost import attention_fits as attention_fits
    from lska_jax.ops.pallas.chain import depthwise_chain as depthwise_chain
    from lska_jax.ops.pallas.ffn import conv_ffn as conv_ffn
    from lska_jax.ops.pallas.ffn import ffn_fits as ffn_fits
else:

    def _late(module: str, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            function = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return function(*arguments, **options)

        call.__name__ = call.__qualname__ = name
        return call

    attention_fits = _late("attention_cost", "attention_fits")
    conv_ffn = _late("ffn", "conv_ffn")
    depthwise_chain = _late("chain", "depthwise_chain")
    ffn_fits = _late("ffn", "ffn_fits")
    fused_attention = _late("attention", "fused_attention")

__all__ = [
    "attention_fits",
    "conv_ffn",
    "depthwise_chain",
    "ffn_fits",
    "fits",
    "fused_attention",
]
