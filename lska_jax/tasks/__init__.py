"""What is learned: batches, losses and metrics of each task, and pictures of what comes of it."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.tasks.pictures.detections import draw_found as draw_found
    from lska_jax.tasks.pictures.label_maps import draw_label_map as draw_label_map
    from lska_jax.tasks.pictures.objects import draw_objects as draw_objects

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "draw_found": "lska_jax.tasks.pictures.detections",
        "draw_label_map": "lska_jax.tasks.pictures.label_maps",
        "draw_objects": "lska_jax.tasks.pictures.objects",
    },
)
