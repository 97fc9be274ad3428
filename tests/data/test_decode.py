"""Decoding: right pixels for every kind of file, and a clear refusal of broken ones."""

import io
import pathlib
import pickle

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from lska_jax.data.decode import decode_rgb, upright_pixels_of, upright_size
from lska_jax.data.sources import BrokenImage

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A synthetic photo, 97 x 83: its edges lie inside the 16-pixel blocks of JPEG."""
    with np.load(FIXTURES / "centre_crop_torchvision.npz") as stored:
        return Image.fromarray(stored["image"]).resize((97, 83), Image.Resampling.BICUBIC)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pillow_rgb(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_pixels_equal_pillows(photo, subsampling, progressive, quality):
    data = encode(photo, "JPEG", subsampling=subsampling, progressive=progressive, quality=quality)
    np.testing.assert_array_equal(decode_rgb(data), pillow_rgb(data))


def test_grey_jpeg_gets_three_equal_channels(photo):
    data = encode(photo.convert("L"), "JPEG")
    pixels = decode_rgb(data)
    assert pixels.shape == (83, 97, 3)
    np.testing.assert_array_equal(pixels, pillow_rgb(data))


def test_cmyk_jpeg_shows_the_picture_and_not_its_negative(photo):
    pixels = decode_rgb(encode(photo.convert("CMYK"), "JPEG", quality=95))
    difference = np.abs(pixels.astype(int) - np.asarray(photo))
    # JPEG at quality 95 on four ink planes costs a few grey levels; a negative is off by over 60.
    assert difference.mean() < 5


def test_cmyk_jpeg_pixels_equal_pillows(photo):
    data = encode(photo.convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decode_rgb(data), pillow_rgb(data))


def test_png_named_like_a_jpeg_is_recognised_by_its_content(photo):
    np.testing.assert_array_equal(decode_rgb(encode(photo, "PNG")), np.asarray(photo))


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PPM"])
def test_other_lossless_formats_are_read(photo, file_format):
    np.testing.assert_array_equal(decode_rgb(encode(photo, file_format)), np.asarray(photo))


def test_palette_png_gets_its_colours(photo):
    palette_image = photo.quantize(64)
    expected = np.asarray(palette_image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(palette_image, "PNG")), expected)


def test_palette_with_transparent_colours_is_read_without_a_warning(photo):
    palette_image = photo.quantize(64)
    expected = np.asarray(palette_image.convert("RGB"))
    data = encode(palette_image, "PNG", transparency=bytes(range(64)))
    np.testing.assert_array_equal(decode_rgb(data), expected)


def test_transparency_is_dropped(photo):
    with_alpha = photo.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    np.testing.assert_array_equal(decode_rgb(encode(with_alpha, "PNG")), np.asarray(photo))


def test_grey_png_with_alpha_gets_three_equal_channels(photo):
    grey = photo.convert("L")
    expected = np.asarray(grey.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(grey.convert("LA"), "PNG")), expected)


def test_black_and_white_png_uses_the_full_range(photo):
    pixels = decode_rgb(encode(photo.convert("1"), "PNG"))
    assert set(np.unique(pixels)) == {0, 255}


def test_16_bit_png_is_scaled_to_8_bits():
    levels = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    pixels = decode_rgb(encode(Image.fromarray(levels), "PNG"))
    expected = np.arange(256).reshape(16, 16)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_exif_orientation_is_ignored_as_in_the_reference(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encode(photo, "JPEG")
    np.testing.assert_array_equal(decode_rgb(encode(photo, "JPEG", exif=exif)), decode_rgb(plain))


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("end_marker", [b"", b"\xff\xd9"], ids=["cut", "cut_and_closed"])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_truncated_jpeg_is_refused(photo, kept, end_marker, progressive):
    data = encode(photo, "JPEG", quality=95, progressive=progressive)
    with pytest.raises(BrokenImage):
        decode_rgb(data[: int(kept * len(data))] + end_marker)


def test_jpeg_with_impossible_codes_in_the_middle_is_refused(photo):
    data = bytearray(encode(photo, "JPEG", quality=95))
    middle = len(data) // 2
    # A run of ones is no Huffman code of any JPEG; the zero byte keeps 0xFF from being a marker.
    data[middle : middle + 60] = b"\xff\x00" * 30
    with pytest.raises(BrokenImage):
        decode_rgb(bytes(data))


def test_jpeg_with_stray_bytes_before_the_end_marker_keeps_its_pixels(photo):
    data = encode(photo, "JPEG")
    stray = data[:-2] + bytes(4) + data[-2:]
    np.testing.assert_array_equal(decode_rgb(stray), decode_rgb(data))


def test_bytes_after_the_end_of_a_jpeg_are_ignored(photo):
    data = encode(photo, "JPEG")
    np.testing.assert_array_equal(decode_rgb(data + b"comment" * 9), decode_rgb(data))


@pytest.mark.parametrize("kept", [0.002, 0.3, 0.9])
def test_truncated_png_is_refused(photo, kept):
    data = encode(photo, "PNG")
    with pytest.raises(BrokenImage):
        decode_rgb(data[: int(kept * len(data))])


def test_png_with_a_flipped_byte_is_refused(photo):
    data = bytearray(encode(photo, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BrokenImage):
        decode_rgb(bytes(data))


def test_empty_file_is_named_as_empty():
    with pytest.raises(BrokenImage, match="^empty file$"):
        decode_rgb(b"")


@pytest.mark.parametrize(
    "data", [b"<html>404 Not Found</html>", bytes(500), b"\xff\xd8", b"\x89PNG", b"x", b"\0\0"]
)
def test_file_that_is_no_image_is_refused(data):
    with pytest.raises(BrokenImage, match="^not an image file$"):
        decode_rgb(data)


def test_reason_is_one_line_without_memory_addresses():
    with pytest.raises(BrokenImage) as caught:
        decode_rgb(b"not an image at all")
    assert str(caught.value) == "not an image file"


def test_broken_image_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(BrokenImage("empty file")))
    assert type(error) is BrokenImage and str(error) == "empty file"


@pytest.mark.parametrize("orientation", [*range(10), 700])
def test_turned_photos_of_dense_sets_lie_as_viewers_show_them(photo, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(photo, "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        assert upright_size(image) == expected.shape[:2]
    np.testing.assert_array_equal(upright_pixels_of(data), expected)
    np.testing.assert_array_equal(decode_rgb(data), pillow_rgb(data))
