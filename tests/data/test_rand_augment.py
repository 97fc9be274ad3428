"""RandAugment: every operation against timm 0.4.12, the draws, the notation."""

import collections
import inspect
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from lska_jax.data.rand_augment import (
    INCREASING_OPERATIONS,
    INTERPOLATIONS,
    OPERATIONS,
    PLAIN_OPERATIONS,
    RandAugment,
    Settings,
    parse_rand_augment,
)

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "rand_augment_timm.npz"
RECIPE = "rand-m9-mstd0.5-inc1"
LOOKUP_TABLES = {
    *("AutoContrast", "Equalize", "Invert", "Posterize", "PosterizeIncreasing", "Solarize"),
    *("SolarizeIncreasing", "SolarizeAdd"),
}
BILINEAR = Image.Resampling.BILINEAR


@pytest.fixture(scope="module")
def timm() -> dict[str, np.ndarray]:
    """What timm made of a synthetic photo (see make_rand_augment_fixture.py)."""
    with np.load(FIXTURE) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def photo(timm) -> Image.Image:
    return Image.fromarray(timm["RGB/image"])


def run(name: str, image: Image.Image, argument: float, *, fill=(128,)) -> np.ndarray:
    settings = Settings(resample=BILINEAR, fill=fill)
    return np.asarray(OPERATIONS[name].apply(image, argument, settings))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_gives_the_pixels_of_timm(timm, mode, name):
    image = Image.fromarray(timm[f"{mode}/image"])
    operation = OPERATIONS[name]
    compared = 0
    for case, expected in zip(timm[f"{mode}/cases"], timm[f"{mode}/outputs"], strict=True):
        case_name, magnitude, sign, resampling = str(case).split()
        if case_name != name:
            continue
        argument = int(sign) * operation.argument(float(magnitude) / 10)
        settings = Settings(resample=INTERPOLATIONS[resampling][0], fill=(128,))
        output = np.asarray(operation.apply(image, argument, settings))
        # Equal on the machine that made the fixture. Tables of integers are equal anywhere; the
        # others compute in floating point, which another compiler may round to the next level.
        tolerance = 0 if name in LOOKUP_TABLES else 1
        assert np.abs(output.astype(int) - expected).max() <= tolerance, case
        compared += 1
    assert compared >= 3


def test_there_are_fifteen_operations_of_either_kind():
    assert len(INCREASING_OPERATIONS) == len(PLAIN_OPERATIONS) == 15


def test_recipe_draws_from_the_increasing_operations():
    assert parse_rand_augment(RECIPE).operation_names == (
        *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing"),
        *("SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing", "ContrastIncreasing"),
        *("BrightnessIncreasing", "SharpnessIncreasing", "ShearX", "ShearY", "TranslateXRel"),
        "TranslateYRel",
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Rotate", (0.0, 27.0, 30.0)),
        ("Posterize", (0, 3, 4)),
        ("PosterizeIncreasing", (4, 1, 0)),
        ("Solarize", (0, 230, 256)),
        ("SolarizeIncreasing", (256, 26, 0)),
        ("SolarizeAdd", (0, 99, 110)),
        ("Contrast", (0.1, 1.72, 1.9)),
        ("ContrastIncreasing", (0.0, 0.81, 0.9)),
        ("ShearX", (0.0, 0.27, 0.3)),
        ("TranslateYRel", (0.0, 0.405, 0.45)),
    ],
)
def test_argument_at_magnitudes_0_9_and_10(name, arguments):
    computed = [OPERATIONS[name].argument(magnitude / 10) for magnitude in (0, 9, 10)]
    np.testing.assert_allclose(computed, arguments, rtol=1e-12)  # float64 rounding


@pytest.mark.parametrize("name", [n for n in INCREASING_OPERATIONS if OPERATIONS[n].is_signed])
def test_signed_operation_does_nothing_at_magnitude_zero(photo, name):
    output = run(name, photo, OPERATIONS[name].argument(0.0))
    np.testing.assert_array_equal(output, np.asarray(photo))


def test_posterising_to_zero_bits_is_black(photo):
    assert run("PosterizeIncreasing", photo, 0.0).max() == 0


def test_uncovered_corner_shows_the_fill_colour_per_channel(photo):
    output = run("TranslateXRel", photo, 0.5, fill=(10, 20, 30))
    np.testing.assert_array_equal(output[0, -1], (10, 20, 30))


def test_single_fill_value_serves_all_channels(photo):
    np.testing.assert_array_equal(run("Rotate", photo, 30.0, fill=(7,))[0, 0], (7, 7, 7))


def test_calling_does_what_the_draw_says(photo):
    augment = parse_rand_augment("rand-m9-n3-mstd0.5-inc1-p1", fill=(1, 2, 3))
    expected = photo
    for step in augment.draw(np.random.default_rng(5)):
        settings = Settings(resample=step.resample, fill=(1, 2, 3))
        expected = OPERATIONS[step.name].apply(expected, step.argument, settings)
    output = augment(photo, np.random.default_rng(5))
    np.testing.assert_array_equal(np.asarray(output), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_and_mode_stay_for_any_draw(photo, mode):
    augment = parse_rand_augment("rand-m10-n2-mstd3-inc1-p1")
    rng = np.random.default_rng(0)
    for _ in range(200):
        output = augment(photo.convert(mode), rng)
        assert (output.size, output.mode) == (photo.size, mode)


@pytest.fixture(scope="module")
def drawn_steps() -> list:
    rng = np.random.default_rng(0)
    augment = parse_rand_augment(RECIPE)
    draw = inspect.unwrap(RandAugment.draw)  # checks of annotations would take most of the time
    return [draw(augment, rng) for _ in range(60_000)]


@pytest.mark.slow
def test_each_operation_is_applied_at_its_rate(drawn_steps):
    # 2 draws per image, each operation 1 of 15, applied half the time: 1/15 per image.
    counts = collections.Counter(step.name for steps in drawn_steps for step in steps)
    rates = [counts[name] / len(drawn_steps) for name in INCREASING_OPERATIONS]
    # The standard error of a rate over 60,000 images is 0.001; five of them.
    np.testing.assert_allclose(rates, 1 / 15, atol=0.005)


def test_number_of_applied_operations_is_binomial(drawn_steps):
    shares = np.bincount([len(steps) for steps in drawn_steps]) / len(drawn_steps)
    # Standard error 0.002; five of them.
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.01)


def test_same_operation_can_come_twice(drawn_steps):
    pairs = [steps for steps in drawn_steps if len(steps) == 2]
    share = np.mean([first.name == second.name for first, second in pairs])
    # Draws with replacement: 1/15. Standard error 0.002 over 15,000 pairs; five of them.
    np.testing.assert_allclose(share, 1 / 15, atol=0.01)


def test_magnitudes_are_normal_around_nine_and_clipped_at_ten(drawn_steps):
    arguments = [s.argument for steps in drawn_steps for s in steps if s.name == "Rotate"]
    magnitudes = np.abs(arguments) / 3
    # Of N(9, 0.5), 2.275 % lie above 10 and are set to 10: the mean falls by 0.5 * 0.00849.
    # About 4,000 draws: standard errors 0.008 (mean), 0.006 (std), 0.0024 (share); four of each.
    np.testing.assert_allclose(magnitudes.mean(), 8.9958, atol=0.032)
    np.testing.assert_allclose(magnitudes.std(), 0.49, atol=0.025)
    np.testing.assert_allclose(np.mean(magnitudes == 10), 0.02275, atol=0.0095)


@pytest.mark.parametrize("name", [n for n in INCREASING_OPERATIONS if OPERATIONS[n].is_signed])
def test_sign_is_negative_half_the_time(drawn_steps, name):
    arguments = np.array([s.argument for steps in drawn_steps for s in steps if s.name == name])
    # About 4,000 draws: standard error 0.008; four of them and a bit, for nine operations.
    np.testing.assert_allclose(np.mean(arguments < 0), 0.5, atol=0.036)


def test_random_interpolation_is_bicubic_half_the_time(drawn_steps):
    is_bicubic = [s.resample == Image.Resampling.BICUBIC for steps in drawn_steps for s in steps]
    # 60,000 draws: standard error 0.002; five of them.
    np.testing.assert_allclose(np.mean(is_bicubic), 0.5, atol=0.01)


def test_fixed_interpolation_is_the_only_one_drawn():
    augment = parse_rand_augment(RECIPE, interpolation="bicubic")
    rng = np.random.default_rng(0)
    resamplings = {step.resample for _ in range(100) for step in augment.draw(rng)}
    assert resamplings == {Image.Resampling.BICUBIC}


def test_without_deviation_the_magnitude_is_fixed():
    augment = parse_rand_augment("rand-m6-inc1-p1")
    rng = np.random.default_rng(0)
    angles = {abs(s.argument) for _ in range(300) for s in augment.draw(rng) if s.name == "Rotate"}
    assert angles == {18.0}


@pytest.mark.parametrize(("spec", "count"), [("rand-n4-p0", 0), ("rand-n4-p1", 4)])
def test_probability_zero_or_one_applies_none_or_all_of_the_operations(spec, count):
    augment = parse_rand_augment(spec)
    rng = np.random.default_rng(0)
    assert {len(augment.draw(rng)) for _ in range(50)} == {count}


def test_notation_of_the_recipe_is_understood():
    assert parse_rand_augment(RECIPE) == RandAugment(
        num_operations=2,
        magnitude=9.0,
        magnitude_std=0.5,
        probability=0.5,
        is_increasing=True,
    )


def test_missing_sections_take_timms_defaults():
    assert parse_rand_augment("rand") == RandAugment(
        num_operations=2, magnitude=10.0, magnitude_std=0.0, is_increasing=False
    )


def test_inc0_switches_the_increasing_variants_off():
    assert parse_rand_augment("rand-m9-inc0").operation_names == PLAIN_OPERATIONS


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "starts with ''"),
        ("augmix-m3", "starts with 'augmix'"),
        ("rand-m9-", "'' is not a key with a number"),
        ("rand-x3", "'x3' is not a key with a number"),
        ("rand-m9-w0", "'w0' is not a key with a number"),
        ("rand-m", "'m' is not a key with a number"),
        ("rand-m9-m8", "'m' is given twice"),
        ("rand-m11", "'m11' is outside 0 to 10"),
        ("rand-n0", "'n0' is outside 1 to 100"),
        ("rand-n1.5", "'n1.5' needs a whole number"),
        ("rand-inc2", "'inc2' is outside 0 to 1"),
        ("rand-p1.5", "'p1.5' is outside 0 to 1"),
        ("RAND-M9", "starts with 'RAND'"),
    ],
)
def test_bad_notation_is_refused_with_the_problem_and_an_example(spec, problem):
    with pytest.raises(ValueError, match="for example 'rand-m9-mstd0.5-inc1'") as caught:
        parse_rand_augment(spec)
    assert problem in str(caught.value)


def test_unknown_interpolation_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'lanczos'; allowed are bilinear, bicubic, random"):
        parse_rand_augment(RECIPE, interpolation="lanczos")


def test_rand_augment_is_picklable():
    augment = parse_rand_augment(RECIPE, fill=(1, 2, 3))
    assert pickle.loads(pickle.dumps(augment)) == augment
