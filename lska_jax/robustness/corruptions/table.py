"""The 19 corruptions of ImageNet-C by name: how each draws, applies, and its five severities.

Order and names are those of the benchmark (Hendrycks & Dietterich, arXiv 1903.12261): fifteen that
its mean corruption error averages and four for validation.
"""

import functools
from collections.abc import Callable
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


class Corruption(NamedTuple):
    """One corruption at one severity.

    Attributes:
      apply: (images (B, H, W, 3) float32 in [0, 1][, draws with a leading B]) -> images.
      draw: (key, height, width) -> what chance decides about one image; None where it decides
        nothing.
      options: which of ``pictures``, ``faithful``, ``is_levels`` apply takes as keyword arguments.
    """

    apply: Callable[..., jax.Array]
    draw: Callable[[jax.Array, int, int], Any] | None = None
    options: tuple[str, ...] = ()


def corruption_of(name: str, severity: int) -> Corruption:
    """Return a corruption by its name and severity, both known to be right."""
    return _TABLE[name](severity - 1)


def _shots(i: int) -> Corruption:
    count = noise.SHOT_COUNTS[i]
    return Corruption(
        functools.partial(noise.shot_noise, count=count), noise.draw_shots, ("is_levels",)
    )


def _glass(i: int) -> Corruption:
    sigma, reach, walks = glass.GLASS_SETTINGS[i]
    return Corruption(
        functools.partial(glass.glass_blur, sigma=sigma, reach=reach),
        functools.partial(glass.draw_displacements, reach=reach, walks=walks),
        ("faithful",),
    )


def _motion(i: int) -> Corruption:
    radius, sigma = motion.MOTION_SETTINGS[i]
    return Corruption(
        functools.partial(motion.motion_blur, radius=radius, sigma=sigma),
        lambda key, height, width: motion.draw_angle(key),
    )


def _snow(i: int) -> Corruption:
    setting = weather.SNOW_SETTINGS[i]
    return Corruption(
        functools.partial(weather.snow, setting=setting),
        functools.partial(weather.draw_snow, zoom=setting.zoom),
    )


def _frost(i: int) -> Corruption:
    image_weight, frost_weight = weather.FROST_WEIGHTS[i]
    return Corruption(
        functools.partial(weather.frost, image_weight=image_weight, frost_weight=frost_weight),
        lambda key, height, width: weather.draw_frost(key),
        ("pictures", "faithful"),
    )


def _fog(i: int) -> Corruption:
    strength, decay = weather.FOG_SETTINGS[i]
    return Corruption(
        functools.partial(weather.fog, strength=strength, decay=decay), weather.draw_fog
    )


def _with(
    apply: Callable[..., jax.Array],
    draw: Callable[[jax.Array, int, int], Any] | None,
    names: tuple[str, ...],
    settings: tuple[Any, ...],
) -> Callable[[int], Corruption]:
    """Return severity - 1 -> the corruption with the named constants of that severity."""

    def at(i: int) -> Corruption:
        values = settings[i] if len(names) > 1 else (settings[i],)
        return Corruption(functools.partial(apply, **dict(zip(names, values, strict=True))), draw)

    return at


_TABLE: dict[str, Callable[[int], Corruption]] = {
    "gaussian_noise": _with(noise.gaussian_noise, noise.draw_normal, ("std",), noise.GAUSSIAN_STDS),
    "shot_noise": _shots,
    "impulse_noise": _with(
        noise.impulse_noise, noise.draw_uniform, ("share",), noise.IMPULSE_SHARES
    ),
    "defocus_blur": _with(blur.defocus_blur, None, ("radius", "smoothing"), blur.DEFOCUS_DISKS),
    "glass_blur": _glass,
    "motion_blur": _motion,
    "zoom_blur": _with(blur.zoom_blur, None, ("last", "step"), blur.ZOOM_RANGES),
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _with(digital.brightness, None, ("summand",), digital.BRIGHTNESS_SUMMANDS),
    "contrast": _with(digital.contrast, None, ("factor",), digital.CONTRAST_FACTORS),
    "elastic_transform": _with(
        elastic.elastic_transform, elastic.draw_elastic, ("setting",), elastic.ELASTIC_SETTINGS
    ),
    "pixelate": _with(digital.pixelate, None, ("factor",), digital.PIXELATE_FACTORS),
    "jpeg_compression": _with(jpeg.jpeg_compression, None, ("quality",), jpeg.JPEG_QUALITIES),
    "speckle_noise": _with(noise.speckle_noise, noise.draw_normal, ("std",), noise.SPECKLE_STDS),
    "gaussian_blur": _with(blur.gaussian_blur, None, ("sigma",), blur.GAUSSIAN_SIGMAS),
    "spatter": _with(spatter.spatter, spatter.draw_spatter, ("setting",), spatter.SPATTER_SETTINGS),
    "saturate": _with(digital.saturate, None, ("factor", "summand"), digital.SATURATION_CHANGES),
}
