"""Corrupt a batch of images: checks, keys, dtypes, and one compiled program for each corruption.

The severity is an argument of the program, so all five of them compile once.
"""

import difflib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lska_jax.robustness.corruptions.filters import truncate_levels
from lska_jax.robustness.corruptions.frost_pictures import FrostPictures, as_frost_pictures
from lska_jax.robustness.corruptions.severities import Severity
from lska_jax.robustness.corruptions.table import corruption_of
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, SEVERITIES

# Below this the 3 x 3 kernels and the third of the side of the elastic transform have no room.
_SMALLEST_SIDE = 8


def corrupt(
    images: Array | np.ndarray,
    name: str,
    severity: int,
    *,
    key: Array | None = None,
    keys: Array | None = None,
    frost_pictures: FrostPictures | Array | np.ndarray | None = None,
    faithful: bool = True,
) -> Array:
    """Apply one of the 19 corruptions of ImageNet-C to a batch (arXiv 1903.12261).

    Every image has a key of its own, so what happens to it does not depend on the batch that it
    came in: a sweep gives ``keys`` that are folded from the images' places in the data set. Lengths
    are multiplied by the shorter side over 224; at 224 px the constants are the benchmark's. It can
    be called inside ``jax.jit`` and ``jax.vmap``, and compiles itself outside.

    Args:
      images: (B, H, W, 3), uint8, or float in [0, 1]; sides of 8 px or more.
      name: one of ``ALL_CORRUPTIONS``.
      severity: 1 to 5.
      key: a typed PRNG key; image i gets ``jax.random.fold_in(key, i)``.
      keys: (B,) typed PRNG keys, one an image, instead of ``key``. Corruptions without chance
        (defocus, zoom, JPEG, ...) need neither.
      frost_pictures: for frost: what ``load_frost_pictures`` returns or (N, h, w, 3) uint8; None
        takes synthetic crystals, which are not comparable with the benchmark.
      faithful: True repeats the generator's quirks as they are in the official images: glass blur
        copies where it means to swap, frost never takes its sixth picture, and the result is
        truncated to grey levels. False swaps, takes all pictures, and rounds.

    Returns:
      (B, H, W, 3) of the images' dtype. uint8 is truncated (or rounded) as the generator does;
      float keeps its fractions at the end, but steps that go through uint8 inside the generator
      (glass and motion blur, snow, spatter, pixelation, JPEG) go through whole grey levels here.

    Raises:
      ValueError: unknown name or severity, a wrong shape or dtype, a missing or wrong key.
    """
    _check(images, name, severity)
    images = jnp.asarray(images)
    image_keys = None
    if corruption_of(name).draw is not None:
        image_keys = _image_keys(name, key, keys, images.shape[0])
    pictures = as_frost_pictures(frost_pictures) if name == "frost" else None
    return _corrupt(images, image_keys, pictures, np.int32(severity), name=name, faithful=faithful)


@functools.partial(jax.jit, static_argnames=("name", "faithful"))
def _corrupt(
    images: Array,
    keys: Array | None,
    pictures: FrostPictures | None,
    severity: Severity,
    *,
    name: str,
    faithful: bool,
) -> Array:
    chosen = corruption_of(name)
    _, height, width, _ = images.shape
    is_levels = images.dtype == jnp.uint8
    clean = images.astype(jnp.float32)
    if is_levels:
        clean = clean / 255.0
    draws = []
    if chosen.draw is not None:
        told = {"severity": severity} if chosen.draws_by_severity else {}
        draw = functools.partial(chosen.draw, height=height, width=width, **told)
        draws = [jax.vmap(draw)(keys)]
    given = {"pictures": pictures, "faithful": faithful, "is_levels": is_levels}
    options = {option: given[option] for option in chosen.options}
    corrupted = chosen.apply(clean, *draws, severity=severity, **options)
    if not is_levels:
        return corrupted.astype(images.dtype)
    if faithful:
        return truncate_levels(corrupted).astype(jnp.uint8)
    return jnp.round(jnp.clip(corrupted, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def _check(images: Array | np.ndarray, name: str, severity: int) -> None:
    if name not in ALL_CORRUPTIONS:
        near = difflib.get_close_matches(str(name), ALL_CORRUPTIONS, n=1, cutoff=0.0)
        raise ValueError(
            f"There is no corruption {name!r}; did you mean {near[0]!r}? "
            f"The names are {', '.join(ALL_CORRUPTIONS)}."
        )
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}; it must be one of {SEVERITIES}.")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[-1] != 3 or min(shape[1:3]) < _SMALLEST_SIDE:
        raise ValueError(
            f"images have the shape {shape}; give a batch (B, H, W, 3) with sides of "
            f"{_SMALLEST_SIDE} px or more."
        )
    dtype = jnp.dtype(images.dtype)
    if dtype != jnp.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"images are {dtype}; give uint8, or floats in [0, 1].")


def _image_keys(name: str, key: Array | None, keys: Array | None, batch: int) -> Array:
    """Return (B,) keys from the one of ``key`` and ``keys`` that is given."""
    if key is not None and keys is None:
        _check_keys("key", key, ())
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if keys is not None and key is None:
        _check_keys("keys", keys, (batch,))
        return keys
    raise ValueError(
        f"{name} is random: give one of key and keys, "
        f"{'not both' if key is not None else 'such as key=jax.random.key(0)'}."
    )


def _check_keys(argument: str, given: Array, shape: tuple[int, ...]) -> None:
    is_key = isinstance(given, jax.Array) and jnp.issubdtype(given.dtype, jax.dtypes.prng_key)
    if not is_key or given.shape != shape:
        described = f"{given.dtype}{list(given.shape)}" if hasattr(given, "dtype") else repr(given)
        raise ValueError(
            f"{argument} is {described}; it must be typed PRNG keys of shape {shape}, such as "
            f"{'jax.random.key(0)' if not shape else f'jax.random.split(key, {shape[0]})'}."
        )
