"""The 19 corruptions of ImageNet-C by name: how each draws, applies, and its five severities.

Order and names are those of the benchmark (Hendrycks & Dietterich, arXiv 1903.12261): fifteen that
its mean corruption error averages and four for validation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from lska_jax.robustness.corruptions import (
    blur,
    digital,
    elastic,
    glass,
    jpeg,
    motion,
    noise,
    spatter,
    weather,
)
from lska_jax.robustness.corruptions.severities import Severity, at, switched


class Corruption(NamedTuple):
    """One corruption at any severity.

    Attributes:
      apply: (images (B, H, W, 3) float32 in [0, 1][, draws with a leading B], severity=) -> images.
      draw: (key, height, width[, severity=]) -> what chance decides about one image; None where it
        decides nothing.
      options: which of ``pictures``, ``faithful``, ``is_levels`` apply takes as keyword arguments.
      draws_by_severity: whether ``draw`` is to be told the severity.
    """

    apply: Callable[..., jax.Array]
    draw: Callable[..., Any] | None = None
    options: tuple[str, ...] = ()
    draws_by_severity: bool = False


def corruption_of(name: str) -> Corruption:
    """Return a corruption by its name, which is known to be right."""
    return _TABLE[name]


def _with(
    apply: Callable[..., jax.Array], names: tuple[str, ...], settings: Sequence[Any]
) -> Callable[..., jax.Array]:
    """Return ``apply`` with the named constants, plain numbers, of a severity."""
    columns = zip(*settings, strict=True) if len(names) > 1 else (settings,)
    tables = dict(zip(names, columns, strict=True))

    def at_severity(*inputs: Any, severity: Severity, **options: Any) -> jax.Array:
        constants = {name: at(severity, table) for name, table in tables.items()}
        return apply(*inputs, **constants, **options)

    return at_severity


def _switched(
    apply: Callable[..., jax.Array], names: tuple[str, ...], settings: Sequence[Any]
) -> Callable[..., jax.Array]:
    """Return ``apply``, in a branch for each severity, with its named constants."""
    cases = [setting if len(names) > 1 else (setting,) for setting in settings]

    def case(constants: tuple[Any, ...], images: jax.Array) -> jax.Array:
        return apply(images, **dict(zip(names, constants, strict=True)))

    return lambda images, *, severity: switched(severity, cases, case, images)


_TABLE: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        _with(noise.gaussian_noise, ("std",), noise.GAUSSIAN_STDS), noise.draw_normal
    ),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_shots, ("is_levels",)),
    "impulse_noise": Corruption(
        _with(noise.impulse_noise, ("share",), noise.IMPULSE_SHARES), noise.draw_uniform
    ),
    "defocus_blur": Corruption(
        _switched(blur.defocus_blur, ("radius", "smoothing"), blur.DEFOCUS_DISKS)
    ),
    "glass_blur": Corruption(
        glass.glass_blur, glass.draw_displacements, ("faithful",), draws_by_severity=True
    ),
    "motion_blur": Corruption(
        motion.motion_blur, lambda key, height, width: motion.draw_angle(key)
    ),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.draw_snow),
    "frost": Corruption(
        _with(weather.frost, ("image_weight", "frost_weight"), weather.FROST_WEIGHTS),
        lambda key, height, width: weather.draw_frost(key),
        ("pictures", "faithful"),
    ),
    "fog": Corruption(weather.fog, weather.draw_fog),
    "brightness": Corruption(_with(digital.brightness, ("summand",), digital.BRIGHTNESS_SUMMANDS)),
    "contrast": Corruption(_with(digital.contrast, ("factor",), digital.CONTRAST_FACTORS)),
    "elastic_transform": Corruption(elastic.elastic_transform, elastic.draw_elastic),
    "pixelate": Corruption(_switched(digital.pixelate, ("factor",), digital.PIXELATE_FACTORS)),
    "jpeg_compression": Corruption(jpeg.jpeg_compression),
    "speckle_noise": Corruption(
        _with(noise.speckle_noise, ("std",), noise.SPECKLE_STDS), noise.draw_normal
    ),
    "gaussian_blur": Corruption(_switched(blur.gaussian_blur, ("sigma",), blur.GAUSSIAN_SIGMAS)),
    "spatter": Corruption(spatter.spatter, spatter.draw_spatter),
    "saturate": Corruption(
        _with(digital.saturate, ("factor", "summand"), digital.SATURATION_CHANGES)
    ),
}
