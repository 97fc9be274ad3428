"""What shape images have, without jax: errors that say what they look like instead."""

from typing import Any


def check_channels(images: Any, channels: int) -> None:
    """Raise ValueError unless images are (B, H, W, C) with a given C, TypeError for no array."""
    shape = getattr(images, "shape", None)
    if shape is None:
        raise TypeError(
            f"images must be an array, got {type(images).__name__}; make one with jnp.asarray."
        )
    if len(shape) == 4 and shape[3] == channels:
        return
    hint = ""
    if len(shape) == 4 and shape[1] == channels:
        hint = (
            " They look channels-first, (B, C, H, W); put the channels last with "
            "jnp.moveaxis(images, 1, -1)."
        )
    elif len(shape) == 3 and shape[2] == channels:
        hint = " They look like one image; add the batch axis with images[None]."
    raise ValueError(f"images must have shape (B, H, W, {channels}), got {shape}.{hint}")
