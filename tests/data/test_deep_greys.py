"""Greys of more than 8 bits: scaled by the maximum that the file states, or refused."""

import io
import struct

import numpy as np
import pytest
from image_bytes import pgm, png, tiff
from PIL import Image

from lska_jax.data.decode import decode_rgb
from lska_jax.data.sources import BrokenImage

# Tags of TIFF and their types: the extremes of unsigned integers, and of any type.
MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE = 281, 340, 341
SHORT, SIGNED, FLOAT = 3, 9, 11


def greys(data: bytes) -> list[int]:
    pixels = decode_rgb(data)
    assert (pixels[..., :1] == pixels).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("maximum", [1, 15, 255, 256, 1_023, 4_095, 32_767, 65_535])
def test_a_pgm_is_white_at_its_maximum_and_grey_at_half_of_it(maximum):
    black, grey, white = greys(pgm(maximum, [0, (maximum + 1) // 2, maximum]))
    assert (black, white) == (0, 255)
    if maximum > 15:
        assert abs(grey - 127.5) <= 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_unsigned_greys_of_a_tiff_are_white_at_the_maximum_of_their_bits(bits):
    # Black, then white.
    pixels = {8: b"\0\xff", 12: b"\x00\x0f\xff", 16: b"\0\0\xff\xff"}[bits]
    assert greys(tiff(bits, 2, pixels)) == [0, 255]


def test_inverted_greys_of_a_16_bit_tiff_are_turned_round():
    pixels = struct.pack("<HH", 0, 65_535)
    assert greys(tiff(16, 2, pixels, photometric=0)) == [255, 0]


def test_a_maximum_that_a_tiff_states_counts():
    data = tiff(16, 3, struct.pack("<HHH", 0, 2_048, 4_095), extra=((MAX_SAMPLE, SHORT, 4_095),))
    assert greys(data) == [0, 128, 255]


@pytest.mark.parametrize(
    "data",
    [
        tiff(
            32,
            4,
            struct.pack("<ffff", -1.0, 0.0, 0.5, 9.0),
            sample_format=3,
            extra=((SMAX_SAMPLE, FLOAT, 1.0),),
        ),
        tiff(
            32,
            4,
            struct.pack("<iiii", -7, -5, 0, 99),
            sample_format=2,
            extra=((SMIN_SAMPLE, SIGNED, -5), (SMAX_SAMPLE, SIGNED, 5)),
        ),
    ],
    ids=["float", "signed"],
)
def test_stated_limits_of_any_type_are_black_and_white_and_nothing_lies_beyond(data):
    assert greys(data) == [0, 0, 128, 255]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(32, 1, struct.pack("<f", 0.5), sample_format=3), r"mode F \(TIFF\) state no maximum"),
        (tiff(32, 1, struct.pack("<I", 70_000)), r"mode I \(TIFF\) state no maximum"),
        (tiff(16, 1, struct.pack("<h", -5), sample_format=2), r"mode I \(TIFF\)"),
        (b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5), r"mode F \(PPM\)"),
        (tiff(16, 1, b"\0\1", extra=((MAX_SAMPLE, SHORT, 0),)), "greys from 0 to 0"),
    ],
    ids=["float", "integers", "signed", "pfm", "no_range"],
)
def test_greys_without_a_maximum_are_refused_with_their_mode(data, reason):
    with pytest.raises(BrokenImage, match=reason):
        decode_rgb(data)


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_16_bit_colours_of_a_png_keep_their_high_bytes(mode):
    channels = {"RGB": 3, "LA": 2}[mode]
    row = b"".join(struct.pack(">H", value) for value in (0, 32_768, 65_535)[:channels])
    data = png(16, {"RGB": 2, "LA": 4}[mode], 1, [row])
    expected = [0, 128, 255] if mode == "RGB" else [0, 0, 0]
    assert decode_rgb(data)[0, 0].tolist() == expected


@pytest.mark.parametrize("maximum", [4_095, 65_535])
def test_deep_colours_of_a_ppm_are_white_at_their_maximum(maximum):
    values = b"".join(value.to_bytes(2, "big") for value in (0, maximum // 2, maximum))
    red, green, blue = decode_rgb(b"P6\n1 1\n%d\n" % maximum + values)[0, 0].tolist()
    assert (red, blue) == (0, 255) and abs(green - 127) <= 1


def test_16_bits_of_jpeg_2000_are_white_at_their_maximum():
    levels = np.array([[0, 32_768, 65_535]] * 3, np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG2000", irreversible=False)
    assert greys(file.getvalue()) == [0, 128, 255]


def test_a_ramp_of_16_bits_is_the_same_as_png_and_tiff():
    levels = np.linspace(0, 65_535, 64).astype(np.uint16)[None]
    files = [io.BytesIO(), io.BytesIO()]
    for file, file_format in zip(files, ("PNG", "TIFF"), strict=True):
        Image.fromarray(levels).save(file, file_format)
    assert greys(files[0].getvalue()) == greys(files[1].getvalue()) == (levels[0] >> 8).tolist()
