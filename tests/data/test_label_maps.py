"""Label maps: every pixel keeps the number that the file stores."""

import io
import struct

import numpy as np
import pytest
from image_bytes import pgm, png, tiff
from PIL import Image

from lska_jax.data.label_maps import read_label_map
from lska_jax.data.sources import BrokenImage

# 0 1 2 3, then 0 1 9 15, in bits.
TWO_BITS, FOUR_BITS = b"\x1b", b"\x01\x9f"
SIXTEEN = struct.pack("<HH", 5, 40_000)


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (png(1, 0, 8, [b"\x0f"]), [0, 0, 0, 0, 1, 1, 1, 1]),
        (png(2, 0, 4, [TWO_BITS]), [0, 1, 2, 3]),
        (png(4, 0, 4, [FOUR_BITS]), [0, 1, 9, 15]),
        (png(8, 0, 3, [b"\x00\x15\xff"]), [0, 21, 255]),
        (png(16, 0, 2, [b"\x00\x05\x9c\x40"]), [5, 40_000]),
        (png(1, 3, 8, [b"\x0f"], bytes(6)), [0, 0, 0, 0, 1, 1, 1, 1]),
        (png(2, 3, 4, [TWO_BITS], bytes(12)), [0, 1, 2, 3]),
        (png(4, 3, 4, [FOUR_BITS], bytes(48)), [0, 1, 9, 15]),
        (png(8, 3, 3, [b"\x00\x15\xff"], bytes(768)), [0, 21, 255]),
        (tiff(2, 4, TWO_BITS), [0, 1, 2, 3]),
        (tiff(4, 4, FOUR_BITS), [0, 1, 9, 15]),
        (tiff(8, 3, b"\x00\x15\xff"), [0, 21, 255]),
        (tiff(16, 2, SIXTEEN), [5, 40_000]),
        (tiff(1, 8, b"\x0f", photometric=0), [0, 0, 0, 0, 1, 1, 1, 1]),
        (tiff(2, 4, TWO_BITS, photometric=0), [0, 1, 2, 3]),
        (tiff(4, 4, FOUR_BITS, photometric=0), [0, 1, 9, 15]),
        (tiff(8, 3, b"\x00\x15\xff", photometric=0), [0, 21, 255]),
        (tiff(16, 2, SIXTEEN, photometric=0), [5, 40_000]),
        (tiff(32, 2, struct.pack("<II", 5, 40_000)), [5, 40_000]),
        (pgm(1, [0, 1]), [0, 1]),
        (pgm(20, [0, 7, 20]), [0, 7, 20]),
        (pgm(255, [0, 21, 255]), [0, 21, 255]),
        (pgm(300, [0, 7, 299, 300]), [0, 7, 299, 300]),
        (pgm(65_535, [0, 40_000]), [0, 40_000]),
        (b"P2\n3 1\n20\n0 7 20\n", [0, 7, 20]),
        (b"P4\n8 1\n\x0f", [0, 0, 0, 0, 1, 1, 1, 1]),
    ],
)
def test_ids_are_the_numbers_in_the_file(data, ids):
    assert read_label_map(data).tolist() == [ids]


@pytest.mark.parametrize("maximum", [1, 2, 20, 150, 254, 256, 300, 4_095, 65_534])
def test_every_id_of_a_pgm_survives_that_pillow_scales_it(maximum):
    ids = np.unique(np.linspace(0, maximum, 1_000).astype(int)).tolist()
    assert read_label_map(pgm(maximum, ids)).tolist() == [ids]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("grey", [0, 1], ids=["ramp", "colours"])
def test_palettes_give_their_indices(file_format, grey):
    image = Image.new("P", (4, 1))
    image.putdata([0, 1, 2, 3])
    image.putpalette([9 * (1 - grey), 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert read_label_map(saved(image, file_format)).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_keep_their_ids(compression):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = saved(Image.fromarray(ids), "TIFF", compression=compression)
    np.testing.assert_array_equal(read_label_map(data), ids)


def test_the_type_tells_how_many_bits_the_file_has():
    assert read_label_map(png(4, 0, 4, [FOUR_BITS])).dtype == np.uint8
    assert read_label_map(png(16, 0, 2, [b"\x00\x05\x00\x06"])).dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved(Image.new("RGB", (4, 4)), "PNG"), "mode RGB holds colours"),
        (saved(Image.new("LA", (4, 4)), "PNG"), "mode LA holds colours"),
        (saved(Image.new("L", (4, 4)), "JPEG"), "JPEG does not keep ids"),
        (tiff(32, 2, struct.pack("<II", 5, 70_000)), "from 5 to 70,000, beyond 16 bits"),
        (tiff(16, 2, struct.pack("<hh", -1, 5), sample_format=2), "from -1 to 5"),
        (b"no image", "not an image file"),
    ],
)
def test_what_holds_no_ids_is_refused_with_the_reason(data, reason):
    with pytest.raises(BrokenImage, match=reason):
        read_label_map(data)


def test_a_label_map_beyond_the_limit_is_refused_with_its_size():
    with pytest.raises(BrokenImage, match="4 x 1 pixels are more than the limit of 3"):
        read_label_map(png(2, 0, 4, [TWO_BITS]), max_pixels=3)
