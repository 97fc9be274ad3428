"""Corruptions without chance against pixels that the official generator wrote.

The fixture holds crops of two photos (see make_crops_fixture.py). A blur needs the surroundings of
a pixel, so only pixels far enough from the crop's border are compared; the parity with whole photos
is checked by check_official_parity.py, whose table is docs/robustness/parity.md.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.robustness.corruptions import blur, corrupt, digital, filters, jpeg

CROPS = np.load(Path(__file__).with_name("imagenet_c_crops.npz"))
CELLS = sorted(key for key in CROPS.files if "/" in key)


@pytest.fixture(autouse=True)
def crops_are_parts_of_photos_of_224_px(monkeypatch):
    """Lengths of the benchmark hold for the photo, not for the crop."""
    monkeypatch.setattr(filters, "REFERENCE_SIZE", CROPS["clean"].shape[1])


def cells_of(name):
    return pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.split("/")[0] == name])


def index_of(cell):
    return int(cell.split("/")[1]) - 1


def clean():
    return jnp.asarray(CROPS["clean"], jnp.float32) / 255.0


def applied(function, images, **settings):
    return jax.jit(functools.partial(function, **settings))(images)


def assert_close(images, cell, *, margin, mean):
    """Compare truncated images but for ``margin`` pixels at each side."""
    ours = np.asarray(filters.truncate_levels(images))
    inner = slice(margin, ours.shape[1] - margin)
    difference = np.abs(ours - CROPS[cell])[:, inner, inner]
    assert difference.size > 0
    assert difference.mean() <= mean
    return difference


@cells_of("brightness")
def test_brightness_is_official(cell):
    ours = applied(digital.brightness, clean(), summand=digital.BRIGHTNESS_SUMMANDS[index_of(cell)])
    # Sums that are whole levels: float64 leaves some a hair below and truncates them.
    assert assert_close(ours, cell, margin=0, mean=0.2).max() <= 1


@cells_of("saturate")
def test_saturate_is_official(cell):
    factor, summand = digital.SATURATION_CHANGES[index_of(cell)]
    ours = applied(digital.saturate, clean(), factor=factor, summand=summand)
    assert assert_close(ours, cell, margin=0, mean=0.2).max() <= 1


@cells_of("contrast")
def test_contrast_is_official(cell):
    factor = digital.CONTRAST_FACTORS[index_of(cell)]
    # One more row of images' means, so that the mean over all is that of the whole photo.
    whole = jnp.asarray(CROPS["means"], jnp.float32)[:, None, None, :] / 255.0
    images = clean()
    _, height, width, _ = images.shape
    missing = whole * (height + 1) - images.mean(axis=(1, 2), keepdims=True) * height
    row = jnp.broadcast_to(missing, (images.shape[0], 1, width, 3))
    with_row = jnp.concatenate([images, row], axis=1)
    ours = applied(digital.contrast, with_row, factor=factor)
    assert assert_close(ours[:, :height], cell, margin=0, mean=0.01).max() <= 1


@cells_of("gaussian_blur")
def test_gaussian_blur_is_official(cell):
    sigma = blur.GAUSSIAN_SIGMAS[index_of(cell)]
    ours = applied(blur.gaussian_blur, clean(), sigma=sigma)
    assert assert_close(ours, cell, margin=int(4 * sigma), mean=0.01).max() <= 1


@cells_of("defocus_blur")
def test_defocus_blur_is_official(cell):
    radius, smoothing = blur.DEFOCUS_DISKS[index_of(cell)]
    ours = applied(blur.defocus_blur, clean(), radius=radius, smoothing=smoothing)
    # A disk's weights are 1 / area: many sums are whole levels, truncated as float64 leaves them.
    assert assert_close(ours, cell, margin=radius + 2, mean=0.1).max() <= 1


@cells_of("jpeg_compression")
def test_jpeg_compression_is_official(cell):
    ours = applied(jpeg.jpeg_compression, clean(), severity=index_of(cell) + 1)
    assert_close(ours, cell, margin=2, mean=1.0)


@cells_of("pixelate")
def test_pixelate_is_official(cell):
    severity = index_of(cell) + 1
    ours = np.asarray(corrupt(CROPS["clean"], "pixelate", severity))
    np.testing.assert_array_equal(ours, CROPS[cell])
