"""JPEG files decoded smaller for training: by how much, where the crop lies, what stays exact."""

import io

import numpy as np
import pytest
from PIL import Image

from lska_jax.data import augment
from lska_jax.data.augment import TrainTransform
from lska_jax.data.decode import SHRINKS, decode_rgb, ordinary_jpeg_size
from lska_jax.data.sources import BrokenImage

SIZE = 16
EXACT = TrainTransform(image_size=SIZE)
SCALED = TrainTransform(image_size=SIZE, scaled_decoding=True)


def shades(height, width):
    """Return (H, W, 3) uint8 without edges, which any good filter shrinks alike."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [x, y, 0.5 + 0.4 * np.sin(5 * x + 3 * y)]
    return np.uint8(255 * np.clip(np.stack(planes, axis=-1), 0, 1))


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


PHOTO = jpeg(shades(301, 397))


def draws(transform, data, count=20):
    rng = np.random.default_rng(0)
    return np.stack([transform(data, rng) for _ in range(count)]).astype(int)


@pytest.mark.parametrize("shrink", SHRINKS)
def test_sides_are_divided_and_rounded_up(shrink):
    assert decode_rgb(PHOTO, shrink=shrink).shape == (-(-301 // shrink), -(-397 // shrink), 3)
    grey = jpeg(shades(301, 397)[..., 0])
    assert decode_rgb(grey, shrink=shrink).shape == (-(-301 // shrink), -(-397 // shrink), 3)


def test_each_crop_is_decoded_as_small_as_one_and_a_half_times_the_output_allows(monkeypatch):
    boxes, shrinks = [], []
    draw, decode = augment.draw_crop, augment.decode_rgb
    monkeypatch.setattr(
        augment, "draw_crop", lambda *a, **k: boxes.append(draw(*a, **k)) or boxes[-1]
    )

    def note(data, *, max_pixels, shrink):
        shrinks.append(shrink)
        return decode(data, max_pixels=max_pixels, shrink=shrink)

    monkeypatch.setattr(augment, "decode_rgb", note)
    draws(TrainTransform(image_size=48, scaled_decoding=True), PHOTO)
    for box, shrink in zip(boxes, shrinks, strict=True):
        least = min(box.height, box.width)
        assert shrink == max(n for n in (1, 2, 4, 8) if n == 1 or least >= n * 1.5 * 48)
    assert {*shrinks} == {1, 2, 4}


def test_the_same_boxes_are_cut_to_nearly_the_same_pixels():
    difference = np.abs(draws(SCALED, PHOTO) - draws(EXACT, PHOTO))
    # A shade rises by less than a level a pixel, and a corner moves by four pixels at most.
    assert 0 < difference.mean() < 1
    assert difference.max() <= 6


def test_where_no_crop_is_large_enough_every_pixel_is_exact():
    small = jpeg(shades(47, 40))
    np.testing.assert_array_equal(draws(SCALED, small), draws(EXACT, small))


@pytest.mark.parametrize("kind", ["png", "pixels", "cmyk", "stray bytes"])
def test_what_libjpeg_turbo_does_not_decode_is_exact(kind):
    pixels = shades(301, 397)
    file = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(file, "PNG")
    elif kind == "cmyk":
        Image.fromarray(pixels).convert("CMYK").save(file, "JPEG")
    data = pixels if kind == "pixels" else file.getvalue()
    if kind == "stray bytes":
        # Before the last scan: the header is sound, libjpeg-turbo refuses, and Pillow reads it all.
        Image.fromarray(pixels).save(file, "JPEG", progressive=True)
        data = file.getvalue()
        scan = data.rindex(b"\xff\xda")
        data = data[:scan] + bytes(4) + data[scan:]
        assert ordinary_jpeg_size(data) == (301, 397)
    np.testing.assert_array_equal(draws(SCALED, data, 5), draws(EXACT, data, 5))


def test_a_truncated_file_is_broken_at_any_size():
    with pytest.raises(BrokenImage):
        draws(SCALED, PHOTO[: len(PHOTO) // 2])


def test_it_goes_with_random_resized_crops_alone():
    with pytest.raises(ValueError, match="scaled_decoding goes with crop='random_resized' only"):
        TrainTransform(image_size=SIZE, crop="none", scaled_decoding=True)
