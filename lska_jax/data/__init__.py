"""From examples on disk to global device batches: the only room that decodes images."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.data.opening import open_source as open_source
    from lska_jax.data.opening_label_maps import open_label_maps as open_label_maps
    from lska_jax.data.opening_objects import open_objects as open_objects

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "open_label_maps": "lska_jax.data.opening_label_maps",
        "open_objects": "lska_jax.data.opening_objects",
        "open_source": "lska_jax.data.opening",
    },
)
