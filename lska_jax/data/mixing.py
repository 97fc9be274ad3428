"""Device side of the input: normalisation, random erasing, Mixup and CutMix, inside the step.

Definitions are those of timm 0.4.12, which the reference recipe uses: erasing after normalisation,
then one of Mixup and CutMix, drawn once for the whole batch, with the flipped batch as partner. The
batch is the global one, over all devices, where the reference mixes each device's own.
Everything is a function of a key and has static shapes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

_ERASE_ATTEMPTS = 10
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 1 / 0.3)


class MixingSpec(NamedTuple):
    """What to mix, and how strongly.

    Attributes:
      mixup_alpha: Beta(alpha, alpha) of Mixup's weight; 0 turns Mixup off.
      cutmix_alpha: the same for CutMix; 0 turns CutMix off.
      switch_prob: probability of CutMix where both are on.
      label_smoothing: mass spread over all classes, in [0, 1).
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0


def normalise(
    images: UInt8[Array, "batch height width channels"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "batch height width channels"]:
    """Return (images / 255 - mean) / std as float32; mean and std are for pixels in [0, 1]."""
    scale = 1.0 / (255.0 * jnp.asarray(std, jnp.float32))
    shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return images.astype(jnp.float32) * scale - shift


def random_erasing(
    images: Float[Array, "batch height width channels"], key: jax.Array, *, probability: float
) -> Float[Array, "batch height width channels"]:
    """Replace a random rectangle of some images by normal noise (arXiv 1708.04896, pixel mode).

    Args:
      images: (B, H, W, C), normalised.
      key: a PRNG key.
      probability: chance of each image to be erased; 0 returns the images as they are.

    Returns:
      Images of the same shape; area 0.02 to 1/3 of the image, aspect ratio 0.3 to 3.3.
    """
    if probability == 0:
        return images
    batch, height, width, _ = images.shape
    chosen_key, box_key, noise_key = jax.random.split(key, 3)
    is_chosen = jax.random.bernoulli(chosen_key, probability, (batch,))
    inside = jax.vmap(lambda k: _erase_mask(k, height, width))(jax.random.split(box_key, batch))
    noise = jax.random.normal(noise_key, images.shape, images.dtype)
    return jnp.where((inside & is_chosen[:, None, None])[..., None], noise, images)


def mix(
    images: Float[Array, "batch height width channels"],
    labels: Int[Array, " batch"] | Int[Array, "batch classes"],
    mask: Bool[Array, " batch"],
    key: jax.Array,
    *,
    num_classes: int,
    spec: MixingSpec,
) -> tuple[
    Float[Array, "batch height width channels"],
    Float[Array, "batch classes"],
]:
    """Apply one of Mixup and CutMix to a whole batch and return soft targets.

    Mixup (arXiv 1710.09412) blends each image with its partner by lambda ~ Beta(alpha, alpha);
    CutMix (arXiv 1905.04899) pastes a box of relative area 1 - lambda, and lambda is corrected to
    the area that lies inside the image. The partner of row i is row B - 1 - i; an image whose
    partner is masked out stays unmixed.

    Args:
      images: (B, H, W, C), normalised.
      labels: (B,) class indices; or (B, K) of 0 and 1 where an image has any number of labels.
      mask: (B,), False for broken images.
      key: a PRNG key.
      num_classes: K.
      spec: what to mix.

    Returns:
      Images, and targets (B, K) float32, which sum to one for one label an image.
    """
    if labels.ndim == 1:
        targets = smooth_one_hot(labels, num_classes=num_classes, smoothing=spec.label_smoothing)
    else:
        # Each label is a choice between two.
        ones = labels.astype(jnp.float32)
        targets = ones * (1.0 - spec.label_smoothing) + spec.label_smoothing / 2
    if spec.mixup_alpha == 0 and spec.cutmix_alpha == 0:
        return images, targets
    switch_key, mixup_key, cutmix_key = jax.random.split(key, 3)
    weight_mixup = _mixup_weight(mixup_key, images.shape, spec.mixup_alpha)
    weight_cutmix = _cutmix_weight(cutmix_key, images.shape, spec.cutmix_alpha)
    if spec.mixup_alpha == 0:
        own_weight = weight_cutmix
    elif spec.cutmix_alpha == 0:
        own_weight = weight_mixup
    else:
        use_cutmix = jax.random.bernoulli(switch_key, spec.switch_prob)
        own_weight = jnp.where(use_cutmix, weight_cutmix, weight_mixup)
    # (B, H, W): the share of each pixel that stays the image's own.
    own = jnp.where(mask[::-1, None, None], own_weight[None], 1.0)
    mixed = images * own[..., None] + images[::-1] * (1.0 - own[..., None])
    lam = jnp.mean(own, axis=(1, 2))[:, None]
    return mixed, targets * lam + targets[::-1] * (1.0 - lam)


def smooth_one_hot(
    labels: Int[Array, " batch"], *, num_classes: int, smoothing: float
) -> Float[Array, "batch classes"]:
    """Return one-hot targets with ``smoothing`` spread evenly over all classes, float32."""
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return one_hot * (1.0 - smoothing) + smoothing / num_classes


def _mixup_weight(key: jax.Array, shape: tuple[int, ...], alpha: float) -> Array:
    lam = jax.random.beta(key, alpha, alpha) if alpha else jnp.float32(1.0)
    return jnp.full(shape[1:3], lam, jnp.float32)


def _cutmix_weight(key: jax.Array, shape: tuple[int, ...], alpha: float) -> Array:
    _, height, width, _ = shape
    if not alpha:
        return jnp.ones((height, width), jnp.float32)
    beta_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1.0 - jax.random.beta(beta_key, alpha, alpha))
    box_height = jnp.floor(height * side).astype(jnp.int32)
    box_width = jnp.floor(width * side).astype(jnp.int32)
    centre_row = jax.random.randint(row_key, (), 0, height)
    centre_column = jax.random.randint(column_key, (), 0, width)
    inside = _box(
        (centre_row - box_height // 2, centre_row + box_height // 2),
        (centre_column - box_width // 2, centre_column + box_width // 2),
        height,
        width,
    )
    return 1.0 - inside.astype(jnp.float32)


def _erase_mask(key: jax.Array, height: int, width: int) -> Array:
    area_key, ratio_key, row_key, column_key = jax.random.split(key, 4)
    attempts = (_ERASE_ATTEMPTS,)
    area = jax.random.uniform(area_key, attempts, minval=_ERASE_AREA[0], maxval=_ERASE_AREA[1]) * (
        height * width
    )
    ratio = jnp.exp(
        jax.random.uniform(
            ratio_key, attempts, minval=math.log(_ERASE_RATIO[0]), maxval=math.log(_ERASE_RATIO[1])
        )
    )
    box_heights = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    box_widths = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (box_heights < height) & (box_widths < width)
    first = jnp.argmax(fits)
    box_height, box_width = box_heights[first], box_widths[first]
    top = jax.random.randint(row_key, (), 0, jnp.maximum(height - box_height, 0) + 1)
    left = jax.random.randint(column_key, (), 0, jnp.maximum(width - box_width, 0) + 1)
    box = _box((top, top + box_height), (left, left + box_width), height, width)
    return box & fits[first]


def _box(rows: tuple[Array, Array], columns: tuple[Array, Array], height: int, width: int) -> Array:
    """Return (H, W) bool, True inside the half-open box."""
    row = jnp.arange(height)[:, None]
    column = jnp.arange(width)[None, :]
    return (row >= rows[0]) & (row < rows[1]) & (column >= columns[0]) & (column < columns[1])
