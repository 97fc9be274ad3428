"""What a network costs, and what it looks at: compiled programs and forward passes, read."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.analysis.complexity import Cost as Cost
    from lska_jax.analysis.complexity import network_cost as network_cost
    from lska_jax.analysis.receptive_field import Extent as Extent
    from lska_jax.analysis.receptive_field import extents as extents

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "Cost": "lska_jax.analysis.complexity",
        "Extent": "lska_jax.analysis.receptive_field",
        "extents": "lska_jax.analysis.receptive_field",
        "network_cost": "lska_jax.analysis.complexity",
    },
)
