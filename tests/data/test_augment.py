"""Training and evaluation transforms against torchvision and timm, and their own promises."""

import inspect
import io
import json
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from lska_jax.data.augment import EvalTransform, TrainTransform, draw_crop
from lska_jax.data.rand_augment import parse_rand_augment
from lska_jax.data.sources import BrokenImage

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
RECIPE = "rand-m9-mstd0.5-inc1"
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "hflip_prob": 0.0}


@pytest.fixture(scope="module")
def torchvision() -> dict[str, np.ndarray]:
    """What torchvision made of a synthetic photo (see make_transform_fixture.py)."""
    with np.load(FIXTURES / "centre_crop_torchvision.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def photo(torchvision) -> np.ndarray:
    """Pixels (48, 61, 3)."""
    return torchvision["image"][:48, :61]


def test_evaluation_equals_torchvision(torchvision):
    for index, case in enumerate(torchvision["cases"]):
        height, width, size, crop_pct, interpolation = str(case).split()
        transform = EvalTransform(
            image_size=int(size), crop_pct=float(crop_pct), interpolation=interpolation
        )
        output = transform(torchvision["image"][: int(height), : int(width)])
        # The same Pillow filter, in integers: a wrong offset by one pixel shows.
        np.testing.assert_array_equal(output, torchvision[f"output_{index}"], err_msg=str(case))


def test_evaluation_of_the_recipe_resizes_224_by_way_of_248(photo):
    expected = Image.fromarray(photo).resize((int(248 * 61 / 48), 248), Image.Resampling.BICUBIC)
    left, top = round((expected.width - 224) / 2), 12
    expected = expected.crop((left, top, left + 224, top + 224))
    output = EvalTransform(image_size=224, crop_pct=0.9)(photo)
    np.testing.assert_array_equal(output, np.asarray(expected))


def test_evaluation_of_an_image_of_the_right_size_changes_nothing(photo):
    square = photo[:48, :48]
    np.testing.assert_array_equal(EvalTransform(image_size=48, crop_pct=1.0)(square), square)


def test_evaluation_surrounds_a_small_image_with_black():
    white = np.full((10, 10, 3), 255, np.uint8)
    output = EvalTransform(image_size=15, crop_pct=1.5)(white)
    expected = np.pad(white, ((2, 3), (2, 3), (0, 0)))
    np.testing.assert_array_equal(output, expected)


def test_evaluation_reads_encoded_and_decoded_images_alike(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG")
    transform = EvalTransform(image_size=20)
    np.testing.assert_array_equal(transform(buffer.getvalue()), transform(photo))


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_input_layout_gives_the_channels_asked_for(shape, channels):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    transforms = [EvalTransform(image_size=16, channels=channels)(image)]
    for crop in ("random_resized", "padded", "none"):
        train = TrainTransform(image_size=16, channels=channels, crop=crop, rand_augment=RECIPE)
        transforms.append(train(image, np.random.default_rng(1)))
    for output in transforms:
        assert output.shape == (16, 16, channels)
        assert output.dtype == np.uint8


def test_grey_input_gives_three_equal_channels(photo):
    output = EvalTransform(image_size=24)(photo[:, :, 0])
    assert np.array_equal(output[..., 0], output[..., 1])
    assert np.array_equal(output[..., 0], output[..., 2])
    np.testing.assert_array_equal(
        output[..., :1], EvalTransform(image_size=24, channels=1)(photo[:, :, :1])
    )


def test_colour_input_for_one_channel_becomes_its_luminance(photo):
    output = EvalTransform(image_size=48, channels=1, crop_pct=1.0)(photo[:48, :48])
    luminance = photo[:48, :48] @ np.array([0.299, 0.587, 0.114])
    # Half a level for rounding, and a little for Pillow's weights in 16-bit fixed point.
    np.testing.assert_allclose(output[..., 0], luminance, atol=0.51)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros(8, np.uint8)]
)
def test_array_of_another_layout_or_type_is_refused(image):
    with pytest.raises(ValueError, match="give uint8"):
        EvalTransform(image_size=8)(image)


def test_broken_bytes_raise_broken_image_in_both_transforms():
    with pytest.raises(BrokenImage):
        EvalTransform(image_size=8)(b"no image")
    with pytest.raises(BrokenImage):
        TrainTransform(image_size=8)(b"no image", np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("row", json.loads((FIXTURES / "random_crop_timm.json").read_text()))
def test_random_boxes_are_distributed_as_timms(row):
    rng = np.random.default_rng(0)
    height, width, draws = row["height"], row["width"], 20_000
    draw = inspect.unwrap(draw_crop)  # checks of annotations would take most of the time
    boxes = np.array([draw(height, width, rng=rng) for _ in range(draws)], dtype=float)
    top, left, box_height, box_width = boxes.T
    quantities = {
        "area_fraction": box_height * box_width / (height * width),
        "log_ratio": np.log(box_width / box_height),
        "top_fraction": top / height,
        "left_fraction": left / width,
    }
    for name, values in quantities.items():
        std = row[f"{name}_std"]
        # Five standard errors of the difference of the two samples' means. For a standard
        # deviation the error depends on the shape: 5 % covers the long-tailed ones here.
        tolerance = 5 * std * np.sqrt(1 / draws + 1 / row["draws"])
        np.testing.assert_allclose(values.mean(), row[f"{name}_mean"], atol=tolerance, err_msg=name)
        np.testing.assert_allclose(values.std(), std, rtol=0.05, err_msg=name)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 100, (0, 43, 10, 13)),
        (100, 10, (43, 0, 13, 10)),
        (30, 31, (0, 0, 30, 31)),
    ],
)
def test_when_no_box_fits_the_largest_centred_one_is_taken(height, width, box):
    # An area of four times the image never fits.
    drawn = draw_crop(height, width, rng=np.random.default_rng(0), scale=(4.0, 4.0))
    assert drawn == box


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (200, 1), (2, 3)])
def test_random_box_in_a_tiny_image_is_never_empty(height, width):
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left, box_height, box_width = draw_crop(height, width, rng=rng)
        assert 1 <= box_height <= height - top and 1 <= box_width <= width - left


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_and_resize_use_pillows_filter_inside_the_box(photo, interpolation):
    transform = TrainTransform(image_size=20, interpolation=interpolation, hflip_prob=0.0)
    output = transform(photo, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    rng.integers(1)  # the choice of the filter comes first
    top, left, height, width = draw_crop(48, 61, rng=rng)
    expected = Image.fromarray(photo[top : top + height, left : left + width])
    expected = expected.resize((20, 20), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(output, np.asarray(expected))


def test_flip_mirrors_left_and_right(photo):
    square = photo[:48, :48]
    transform = TrainTransform(image_size=48, crop="none", hflip_prob=1.0)
    np.testing.assert_array_equal(transform(square, np.random.default_rng(0)), square[:, ::-1])


def test_flip_happens_at_its_probability():
    image = np.array([[0, 255], [0, 255]], np.uint8)
    transform = TrainTransform(image_size=2, channels=1, crop="none", hflip_prob=0.3)
    rng = np.random.default_rng(0)
    share = np.mean([transform(image, rng)[0, 0, 0] == 255 for _ in range(4000)])
    # Standard error 0.007; five of them.
    np.testing.assert_allclose(share, 0.3, atol=0.036)


def test_random_interpolation_uses_both_filters(photo):
    transform = TrainTransform(image_size=17, **WHOLE)
    square = photo[:48, :48]
    outputs = {transform(square, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    expected = {np.asarray(Image.fromarray(square).resize((17, 17), f)).tobytes() for f in filters}
    assert outputs == expected


def test_rand_augment_follows_crop_and_flip_and_fills_with_the_mean(photo):
    square = photo[:48, :48]
    mean = (0.5, 0.25, 1.0)
    transform = TrainTransform(
        image_size=48, crop="none", hflip_prob=1.0, rand_augment="rand-m9-inc1-p1", mean=mean
    )
    augment = parse_rand_augment("rand-m9-inc1-p1", fill=(128, 64, 255))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rng.integers(2)
        rng.random()
        expected = augment(Image.fromarray(np.ascontiguousarray(square[:, ::-1])), rng)
        output = transform(square, np.random.default_rng(seed))
        np.testing.assert_array_equal(output, np.asarray(expected))


@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
def test_padded_crop_shifts_the_image_by_at_most_the_padding(photo, pad_mode):
    square = photo[:32, :32]
    transform = TrainTransform(
        image_size=32, crop="padded", pad=2, pad_mode=pad_mode, hflip_prob=0.0
    )
    widths = ((2, 2), (2, 2), (0, 0))
    padded = np.pad(square, widths, mode="reflect" if pad_mode == "reflect" else "constant")
    shifted = {
        padded[top : top + 32, left : left + 32].tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    rng = np.random.default_rng(0)
    seen = {shifted[transform(square, rng).tobytes()] for _ in range(400)}
    # 400 draws leave out one of 25 equally likely shifts with a chance of 2e-6.
    assert len(seen) == 25


def test_padded_crop_first_brings_another_size_to_the_image_size(photo):
    transform = TrainTransform(
        image_size=24, crop="padded", hflip_prob=0.0, interpolation="bicubic"
    )
    expected = EvalTransform(image_size=24, crop_pct=1.0)(photo)
    np.testing.assert_array_equal(transform(photo, np.random.default_rng(0)), expected)


@pytest.mark.parametrize("crop", ["random_resized", "padded", "none"])
def test_same_generator_state_gives_the_same_pixels(photo, crop):
    pad = 4 if crop == "padded" else 0
    transform = TrainTransform(image_size=24, crop=crop, pad=pad, rand_augment=RECIPE)
    copy = pickle.loads(pickle.dumps(transform))
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(20):
        np.testing.assert_array_equal(transform(photo, first), copy(photo, second))


def test_input_array_is_left_as_it_was(photo):
    image = photo.copy()
    transform = TrainTransform(image_size=24, rand_augment=RECIPE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        transform(image, rng)[...] = 0
    np.testing.assert_array_equal(image, photo)


def test_output_does_not_share_memory_with_the_input(photo):
    square = np.ascontiguousarray(photo[:24, :24])
    train = TrainTransform(image_size=24, crop="none", hflip_prob=0.0)
    assert not np.shares_memory(train(square, np.random.default_rng(0)), square)
    assert not np.shares_memory(EvalTransform(image_size=24, crop_pct=1.0)(square), square)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"channels": 2}, "channels is 2; allowed are 1"),
        ({"crop": "centre"}, "crop is 'centre'; allowed are 'random_resized', 'padded', 'none'"),
        ({"crop_scale": (0.5, 0.1)}, "crop_scale is"),
        ({"crop_scale": (0.5, 1.1)}, "0 < low <= high <= 1"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio is"),
        ({"hflip_prob": 1.5}, "hflip_prob is 1.5"),
        ({"interpolation": "nearest"}, "allowed are bilinear, bicubic, random"),
        ({"rand_augment": "randaugment"}, "for example"),
        ({"mean": (0.5, 0.5)}, "each of the 3 channels"),
        ({"mean": (128.0,)}, r"one value in \[0, 1\]"),
        ({"pad": 4}, "pad goes with crop='padded' only"),
        ({"pad": -1, "crop": "padded"}, "pad is -1"),
        ({"pad": 32, "crop": "padded", "pad_mode": "reflect"}, "fewer than image_size=32"),
        ({"pad_mode": "wrap"}, "allowed are 'zero', 'reflect'"),
    ],
)
def test_training_field_out_of_range_is_refused_with_what_is_allowed(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(**{"image_size": 32, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_pct": 0.0}, "crop_pct is 0.0"),
        ({"crop_pct": 40.0}, "at least one pixel"),
        ({"interpolation": "random"}, "allowed are 'bicubic', 'bilinear'"),
        ({"channels": 4}, "channels is 4"),
    ],
)
def test_evaluation_field_out_of_range_is_refused_with_what_is_allowed(fields, message):
    with pytest.raises(ValueError, match=message):
        EvalTransform(**{"image_size": 32, **fields})
