"""What an image costs is bounded: by a limit on its pixels, and by what is kept of it."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from lska_jax.data import resize
from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.decode import decode_rgb
from lska_jax.data.digits import DigitsSource
from lska_jax.data.examples import LabelledImages
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.loader import BrokenImages, eval_batches
from lska_jax.data.resize import Window, resize_window
from lska_jax.data.sources import BrokenImage
from lska_jax.training.config import base_config

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def saved(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


@pytest.fixture
def every_window(monkeypatch):
    """Let no image be small enough for Pillow."""
    monkeypatch.setattr(resize, "_WHOLE_IMAGE_FACTOR", 0)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_window_has_the_pixels_that_pillow_gives_it(resample, mode, every_window):
    rng = np.random.default_rng(0)
    for _ in range(150):
        height, width = rng.integers(1, 40, 2).tolist()
        size = (width + int(rng.integers(300)), height + int(rng.integers(300)))
        channels = (3,) if mode == "RGB" else ()
        image = Image.fromarray(rng.integers(0, 256, (height, width, *channels), np.uint8))
        top, left = int(rng.integers(size[1])), int(rng.integers(size[0]))
        window = Window((top, int(rng.integers(top, size[1])) + 1), (left, size[0]))
        whole = np.asarray(image.resize(size, resample))
        expected = whole[slice(*window.rows), slice(*window.columns)]
        found = resize_window(image, size, window=window, resample=resample)
        np.testing.assert_array_equal(found, expected, err_msg=f"{height} x {width} to {size}")


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (3, 700), (700, 5), (2, 61)])
@pytest.mark.parametrize("transform", ["eval", "none", "padded"])
def test_a_strip_has_the_pixels_of_the_whole_resized_strip(shape, transform, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    if transform == "eval":
        apply = EvalTransform(image_size=28)
    else:
        made = TrainTransform(image_size=28, crop=transform, hflip_prob=0.0)

        def apply(image: np.ndarray) -> np.ndarray:
            return made(image, np.random.default_rng(1))

    found = apply(pixels)
    monkeypatch.setattr(resize, "_WHOLE_IMAGE_FACTOR", 10**9)
    np.testing.assert_array_equal(found, apply(pixels))


@pytest.mark.parametrize("crop", ["eval", "none", "random_resized"])
def test_a_strip_takes_memory_for_itself_and_the_output_alone(crop):
    program = (
        "import resource\n"
        "import numpy as np\n"
        "from lska_jax.data.augment import EvalTransform, TrainTransform\n"
        f"crop, rng = {crop!r}, np.random.default_rng(0)\n"
        "evaluation = EvalTransform(image_size=224)\n"
        "training = None if crop == 'eval' else TrainTransform(image_size=224, crop=crop)\n"
        "apply = (lambda x: training(x, rng)) if training else evaluation\n"
        "apply(np.zeros((300, 300, 3), np.uint8))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for shape in ((1, 20_000), (60_000, 1), (2, 100_000)):\n"
        "    apply(np.zeros((*shape, 3), np.uint8))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    kibibytes = int(done.stdout)
    # Input 0.6 MB and output 0.15 MB; as whole strips they took 11 to 45 GiB.
    assert kibibytes < 32 * 1024


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_limit_holds_for_every_format(file_format):
    data = saved(Image.new("L", (60, 50), 90), file_format)
    assert decode_rgb(data, max_pixels=3_000).shape == (50, 60, 3)
    with pytest.raises(BrokenImage, match="^60 x 50 pixels are more than the limit of 2,999$"):
        decode_rgb(data, max_pixels=2_999)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_no_size_below_the_limit_warns_or_is_refused(file_format, monkeypatch):
    # Pillow warns beyond this, and refuses twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(Image.new("L", (60, 50), 90), file_format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_rgb(data).shape == (50, 60, 3)


def test_the_limit_of_a_transform_is_an_option():
    data = saved(Image.new("L", (60, 50), 90), "PNG")
    with pytest.raises(BrokenImage, match="limit of 2,000"):
        EvalTransform(image_size=8, max_pixels=2_000)(data)
    with pytest.raises(BrokenImage, match="limit of 2,000"):
        TrainTransform(image_size=8, max_pixels=2_000)(data, np.random.default_rng(0))
    with pytest.raises(ValueError, match="max_pixels is 0"):
        EvalTransform(image_size=8, max_pixels=0)


def test_a_run_has_the_limit_that_every_other_reader_has():
    assert base_config().data.max_image_pixels == MAX_PIXELS


def test_a_jpeg_that_declares_more_than_the_limit_is_never_decoded(monkeypatch):
    data = bytearray(saved(Image.new("L", (60, 50), 90), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = b"\xff\xff\xff\xff"

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    with pytest.raises(BrokenImage, match=f"65,535 x 65,535 .* limit of {MAX_PIXELS:,}"):
        decode_rgb(bytes(data))


@pytest.mark.parametrize("error", [MemoryError, OverflowError])
def test_a_decoder_that_runs_out_of_memory_has_met_a_broken_image(error, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise error

    jpeg, png = (saved(Image.new("L", (6, 5), 90), name) for name in ("JPEG", "PNG"))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    monkeypatch.setattr(Image.Image, "convert", fail)
    for data in (jpeg, png):
        with pytest.raises(BrokenImage, match="more memory than there is"):
            decode_rgb(data)


class _OutOfMemory:
    """A transform that needs more memory than there is."""

    image_size, channels = 4, 1

    def __call__(self, image: np.ndarray) -> np.ndarray:
        raise MemoryError


def test_an_image_that_takes_too_much_memory_to_transform_ends_no_run():
    source, read, said = DigitsSource("test"), LabelledImages(_OutOfMemory()), []
    batch = next(eval_batches(source, read, global_batch_size=2))
    assert not batch["mask"].any()
    BrokenImages(source, read, report=said.append).note(batch)
    assert len(said) == 2 and said[0].endswith("(MemoryError)")


def test_a_file_that_is_a_program_is_not_read():
    with pytest.raises(BrokenImage, match="not an image file"):
        decode_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
