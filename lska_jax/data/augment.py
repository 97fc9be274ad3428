"""Host-side image transforms: random crop, flip and RandAugment for training, centre crop else.

The definitions are those of torchvision and timm 0.4.12, which the reference recipe uses. Resizing
is Pillow's: its bilinear and bicubic filters widen with the scale (they do not alias), while
OpenCV's filters of the same name read only 2 x 2 or 4 x 4 pixels. For the same crop box, flip and
filter the pixels therefore equal the reference's exactly, tolerance 0. OpenCV's, on photos shrunk
to half their size, differ by 3 to 8 grey levels on average, 60 to 100 at edges. The random
numbers come from a NumPy generator, so single draws differ from the reference's and only their
distribution is the same.

Normalisation, Mixup, CutMix and random erasing come later, on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lska_jax.data.crops import Box, draw_crop
from lska_jax.data.decode import SHRINKS, decode_rgb, ordinary_jpeg_size, pixels_of
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.rand_augment import (
    INTERPOLATIONS,
    RandAugment,
    check_interpolation,
    parse_rand_augment,
)
from lska_jax.data.resize import Window, resize_window

CROPS = ("random_resized", "padded", "none")
CROP_MODES = ("center", "squash")
PAD_MODES = ("zero", "reflect")

# What is decoded smaller has at least this many times the output's pixels a side: a crop that is
# resized from it differs from the exact one by a grey level on average.
_LEAST_OVERSAMPLING = 1.5


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Turn one example into a randomly changed training image.

    Order: crop, horizontal flip, RandAugment. All randomness comes from the generator passed to
    the call; the same generator state gives the same pixels. Picklable, without state.

    Attributes:
      image_size: side of the square output, in pixels.
      channels: 3 (RGB) or 1 (greyscale).
      crop: "random_resized" cuts a box of random area and aspect ratio and resizes it. "padded"
        adds `pad` pixels on each side and cuts a random square, the usual recipe for small
        images. "none" leaves the geometry alone. The last two first bring an image of another
        size to `image_size` (short side resized, centre crop).
      crop_scale: area of the box as a fraction of the image, lower and upper bound.
      crop_ratio: width / height of the box, lower and upper bound.
      pad: pixels added on each side, for crop "padded" only.
      pad_mode: "zero" (black) or "reflect".
      hflip_prob: probability of a left-right flip.
      rand_augment: "" for none, or a string such as "rand-m9-mstd0.5-inc1".
      interpolation: "bilinear", "bicubic" or "random" (drawn anew each time), for the resize and
        for the geometric operations of RandAugment.
      mean: mean colour in [0, 1], one value or one per channel; RandAugment fills with it.
      max_pixels: encoded images of more pixels count as broken.
      scaled_decoding: for crop "random_resized": decode JPEG files at 1/8, 1/4 or 1/2 of their
        sides, the smallest of these at which the box still has 1.5 `image_size` pixels a side. The
        same boxes are drawn; their corners are rounded to the pixels of the smaller image. It
        saves most of the time of photos of some megapixels, and gives other pixels than the
        reference.
    """

    image_size: int
    channels: int = 3
    crop: str = "random_resized"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    pad_mode: str = "zero"
    hflip_prob: float = 0.5
    rand_augment: str = ""
    interpolation: str = "random"
    mean: tuple[float, ...] = (0.5,)
    max_pixels: int = MAX_PIXELS
    scaled_decoding: bool = False
    _rand_augment: RandAugment | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
          ValueError: a field has a value that is not allowed.
        """
        _check_size(self.image_size, self.channels, self.max_pixels)
        check_interpolation(self.interpolation)
        _check_choice("crop", self.crop, CROPS)
        _check_choice("pad_mode", self.pad_mode, PAD_MODES)
        _check_range("crop_scale", self.crop_scale, upper=1.0)
        _check_range("crop_ratio", self.crop_ratio, upper=math.inf)
        _check_pad(self)
        if self.scaled_decoding and self.crop != "random_resized":
            raise ValueError(
                f"scaled_decoding goes with crop='random_resized' only, and crop is {self.crop!r}; "
                "leave it out."
            )
        if not 0 <= self.hflip_prob <= 1:
            raise ValueError(f"hflip_prob is {self.hflip_prob}; give a probability in [0, 1].")
        if len(self.mean) not in (1, self.channels) or not all(0 <= m <= 1 for m in self.mean):
            raise ValueError(
                f"mean is {self.mean}; give one value in [0, 1], or one for each of the "
                f"{self.channels} channels."
            )
        rand_augment = None
        if self.rand_augment:
            rand_augment = parse_rand_augment(
                self.rand_augment,
                fill=tuple(min(255, round(255 * value)) for value in self.mean),
                interpolation=self.interpolation,
            )
        object.__setattr__(self, "_rand_augment", rand_augment)

    def __call__(
        self, image: bytes | np.ndarray, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "size size channels"]:
        """Transform one image.

        Args:
          image: bytes of an image file, or uint8 pixels (H, W), (H, W, 1) or (H, W, 3).
          rng: the source of all random numbers; it is advanced.

        Returns:
          Pixels (image_size, image_size, channels) uint8.

        Raises:
          BrokenImage: the bytes are not a complete image.
          ValueError: the array has another shape or type.
        """
        result = self._crop(image, rng)
        if rng.random() < self.hflip_prob:
            result = result.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._rand_augment is not None:
            result = self._rand_augment(result, rng)
        return _to_array(result)

    def _crop(self, image: bytes | np.ndarray, rng: np.random.Generator) -> Image.Image:
        size = self.image_size
        choices = INTERPOLATIONS[self.interpolation]
        resample = choices[rng.integers(len(choices))]
        if isinstance(image, bytes) and self.scaled_decoding:
            jpeg_size = ordinary_jpeg_size(image)
            if jpeg_size is not None:
                box = self._draw_box(*jpeg_size, rng=rng)
                return self._cut_file(image, jpeg_size, box).resize((size, size), resample)
        pixels = _as_pixels(image, channels=self.channels, max_pixels=self.max_pixels)
        if self.crop == "random_resized":
            box = self._draw_box(*pixels.shape[:2], rng=rng)
            return _cut(pixels, box).resize((size, size), resample)
        pixels = _fit(Image.fromarray(pixels), short_side=size, size=size, resample=resample)
        if self.crop == "padded" and self.pad:
            pixels = _pad(pixels, self.pad, self.pad_mode)
            top, left = (int(start) for start in rng.integers(2 * self.pad + 1, size=2))
            return _cut(pixels, Box(top, left, size, size))
        return Image.fromarray(pixels)

    def _draw_box(self, height: int, width: int, *, rng: np.random.Generator) -> Box:
        return draw_crop(height, width, rng=rng, scale=self.crop_scale, ratio=self.crop_ratio)

    def _cut_file(self, image: bytes, size: tuple[int, int], box: Box) -> Image.Image:
        """Cut a box out of a JPEG file of this size, decoded as small as the box allows."""
        enough = _LEAST_OVERSAMPLING * self.image_size
        fitting = (n for n in SHRINKS if min(box.height, box.width) >= n * enough)
        shrink = next(fitting, 1)
        decoded = decode_rgb(image, max_pixels=self.max_pixels, shrink=shrink)
        pixels = _as_pixels(decoded, channels=self.channels, max_pixels=self.max_pixels)
        # Where libjpeg-turbo has something to complain of, Pillow has decoded the whole image.
        if shrink == 1 or pixels.shape[:2] == size:
            return _cut(pixels, box)
        ends = (box.top + box.height, box.left + box.width)
        top, left, bottom, right = (round(n / shrink) for n in (box.top, box.left, *ends))
        return _cut(pixels, Box(top, left, bottom - top, right - left))


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resize the short side, or both, to floor(image_size / crop_pct), then cut out the centre.

    The pixels equal torchvision's Resize and CenterCrop on a Pillow image, as timm 0.4.12 uses
    them. Picklable, without state.

    Attributes:
      image_size: side of the square output, in pixels.
      channels: 3 (RGB) or 1 (greyscale).
      crop_pct: output side as a fraction of the resized short side. Above 1 the resized image is
        smaller than the output and is surrounded with black.
      interpolation: "bicubic" or "bilinear".
      crop_mode: "center" keeps the image's proportions, "squash" resizes both sides alike.
      max_pixels: encoded images of more pixels count as broken.
      has_five_crops: whether to return the four corners and the centre, in this order, of the
        centre square of the resized image, in place of the centre alone.
    """

    image_size: int
    channels: int = 3
    crop_pct: float = 0.9
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    max_pixels: int = MAX_PIXELS
    has_five_crops: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
          ValueError: a field has a value that is not allowed.
        """
        _check_size(self.image_size, self.channels, self.max_pixels)
        _check_choice("interpolation", self.interpolation, ("bicubic", "bilinear"))
        _check_choice("crop_mode", self.crop_mode, CROP_MODES)
        if not 0 < self.crop_pct <= self.image_size:
            raise ValueError(
                f"crop_pct is {self.crop_pct}; give a positive fraction such as 0.9 that leaves a "
                f"short side of at least one pixel ({self.image_size} / crop_pct)."
            )

    def __call__(self, image: bytes | np.ndarray) -> UInt8[np.ndarray, "*views size size channels"]:
        """Transform one image.

        Args:
          image: bytes of an image file, or uint8 pixels (H, W), (H, W, 1) or (H, W, 3).

        Returns:
          Pixels (image_size, image_size, channels) uint8; with five crops (5, ...) of them.

        Raises:
          BrokenImage: the bytes are not a complete image.
          ValueError: the array has another shape or type.
        """
        (resample,) = INTERPOLATIONS[self.interpolation]
        pixels = _as_pixels(image, channels=self.channels, max_pixels=self.max_pixels)
        side, size = math.floor(self.image_size / self.crop_pct), self.image_size
        kept = max(side, size) if self.has_five_crops else size
        fitted = _fit(
            Image.fromarray(pixels),
            short_side=side,
            size=kept,
            resample=resample,
            is_squashed=self.crop_mode == "squash",
        ).reshape(kept, kept, self.channels)
        if not self.has_five_crops:
            return fitted
        last, centre = kept - size, round((kept - size) / 2)
        corners = ((0, 0), (0, last), (last, 0), (last, last), (centre, centre))
        return np.stack([fitted[y : y + size, x : x + size] for y, x in corners])


def _as_pixels(image: bytes | np.ndarray, *, channels: int, max_pixels: int) -> np.ndarray:
    """Bring an example to uint8 (H, W) for one channel or (H, W, 3) for three."""
    pixels = pixels_of(image, max_pixels=max_pixels)
    is_grey = pixels.ndim == 2 or pixels.shape[2:] == (1,)
    if pixels.dtype != np.uint8 or not (is_grey or pixels.shape[2:] == (3,)):
        raise ValueError(
            f"The image is an array of shape {pixels.shape} and type {pixels.dtype}; give uint8 "
            "pixels of shape (H, W), (H, W, 1) or (H, W, 3)."
        )
    if is_grey:
        pixels = pixels.reshape(pixels.shape[:2])
    if channels == 3:
        return np.repeat(pixels[:, :, None], 3, axis=2) if is_grey else pixels
    return pixels if is_grey else np.asarray(Image.fromarray(pixels).convert("L"))


def _to_array(image: Image.Image) -> np.ndarray:
    """Copy to (H, W, C); np.asarray would give a read-only view for what Pillow owns."""
    return np.array(image).reshape(image.height, image.width, len(image.getbands()))


def _cut(pixels: np.ndarray, box: Box) -> Image.Image:
    """Cut before resizing, so that no pixel outside the box has a part in the result."""
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    return Image.fromarray(np.ascontiguousarray(pixels[rows, columns]))


def _fit(
    image: Image.Image,
    *,
    short_side: int,
    size: int,
    resample: Image.Resampling,
    is_squashed: bool = False,
) -> np.ndarray:
    """Resize the short side, or both, and cut the centre square with torchvision's rounding."""
    width, height = image.size
    # The long side is truncated, not rounded.
    if is_squashed:
        target = (short_side, short_side)
    elif width <= height:
        target = (short_side, int(short_side * height / width))
    else:
        target = (int(short_side * width / height), short_side)
    window = Window(rows=_centre(target[1], size), columns=_centre(target[0], size))
    return _surround(resize_window(image, target, window=window, resample=resample), size=size)


def _centre(side: int, size: int) -> tuple[int, int]:
    """Return where the centre starts and stops; the whole side where it is too short."""
    # round() takes halves to the even number, like the reference's.
    start = round((side - size) / 2) if side > size else 0
    return start, min(start + size, side)


def _surround(pixels: np.ndarray, *, size: int) -> np.ndarray:
    """Add black until both sides reach the size; an odd pixel goes right and below."""
    missing = [size - side for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    widths = [(count // 2, (count + 1) // 2) for count in missing]
    return np.pad(pixels, widths + [(0, 0)] * (pixels.ndim - 2))


def _pad(pixels: np.ndarray, width: int, mode: str) -> np.ndarray:
    widths = [(width, width)] * 2 + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, widths, mode="constant" if mode == "zero" else "reflect")


def _check_size(image_size: int, channels: int, max_pixels: int) -> None:
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}; give a positive number of pixels.")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; allowed are 1 (greyscale) and 3 (RGB).")
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; give a positive number of pixels.")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def _check_range(name: str, bounds: tuple[float, float], *, upper: float) -> None:
    low, high = bounds
    if not 0 < low <= high <= upper:
        limit = "" if math.isinf(upper) else f" <= {upper:g}"
        raise ValueError(f"{name} is {bounds}; give (low, high) with 0 < low <= high{limit}.")


def _check_pad(transform: TrainTransform) -> None:
    pad = transform.pad
    if pad and transform.crop != "padded":
        raise ValueError(
            f"pad is {pad}, but crop is {transform.crop!r}; pad goes with crop='padded' only."
        )
    if pad < 0 or (transform.pad_mode == "reflect" and pad >= transform.image_size):
        raise ValueError(
            f"pad is {pad}; give 0 or more, and fewer than image_size={transform.image_size} "
            "pixels with pad_mode='reflect'."
        )
