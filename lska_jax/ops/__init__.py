"""Operations on arrays, without parameters: arrays in, arrays out."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

# Not on first use: it has its module's name, and whoever imports that would put it in its place.
from lska_jax.ops.kernel_spec import kernel_spec as kernel_spec

if TYPE_CHECKING:
    from lska_jax.ops.activation import gelu as gelu
    from lska_jax.ops.depthwise import depthwise_conv as depthwise_conv
    from lska_jax.ops.depthwise import implementations as implementations
    from lska_jax.ops.gate import lska as lska
    from lska_jax.ops.pointwise import pointwise_conv as pointwise_conv

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "depthwise_conv": "lska_jax.ops.depthwise",
        "gelu": "lska_jax.ops.activation",
        "implementations": "lska_jax.ops.depthwise",
        "kernel_spec": "lska_jax.ops.kernel_spec",
        "lska": "lska_jax.ops.gate",
        "pointwise_conv": "lska_jax.ops.pointwise",
    },
)
