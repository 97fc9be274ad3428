"""Every corruption against a brute-force version of its own, with the same draws."""

import functools
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from robustness.corruptions import corruption_oracles as oracles

from lska_jax.robustness.corruptions import (
    SEVERITIES,
    blur,
    digital,
    edges,
    elastic,
    filters,
    frost_pictures,
    glass,
    jpeg,
    motion,
    noise,
    spatter,
    weather,
)

SIDE = 48
KEY = jax.random.key(3)
# A thousandth of a grey level: float32 sums of up to 500 products against float64.
CLOSE = 1e-3 / 255


def severities(*at_every_change):
    """Run a test at each severity, at all but the given ones before a release only."""
    cases = [
        pytest.param(severity - 1, marks=() if severity in at_every_change else pytest.mark.slow)
        for severity in SEVERITIES
    ]
    return pytest.mark.parametrize("i", cases)


# Severities differ in constants alone, which are taken from the package.
each_severity = severities(5)


@pytest.fixture(autouse=True)
def constants_are_for_small_images(monkeypatch):
    """Loops over 224 px would take minutes: let the benchmark's constants be for 48 px."""
    monkeypatch.setattr(filters, "REFERENCE_SIZE", SIDE)
    monkeypatch.setattr(frost_pictures, "REFERENCE_SIZE", SIDE)


def photo(side=SIDE, seed=0):
    """Return (side, side, 3) uint8 with smooth shades, edges and noise, black and white areas."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    shades = np.stack([x, y, np.sin(7 * x + 5 * y) ** 2], axis=-1)
    shades[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05] = (0.9, 0.2, 0.1)
    shades += 0.05 * rng.standard_normal(shades.shape)
    shades[:6, :6], shades[-6:, :6] = 0.0, 1.0
    return np.uint8(np.clip(shades, 0, 1) * 255)


def inputs(side=SIDE):
    """Return one image as the oracles take it and as the package does."""
    levels = photo(side)
    return levels / 255.0, jnp.asarray(levels, jnp.float32)[None] / 255.0


def applied(function, images, *draws, **settings):
    """Run a corruption compiled, on one image with one image's draws."""
    batched = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], draws)
    return np.asarray(jax.jit(lambda x, d: function(x, *d, **settings))(images, batched)[0])


def off_by_a_level(ours, oracle, *, share):
    """Assert that whole grey levels agree but for a share that truncation turned by one."""
    difference = np.abs(np.round(ours * 255) - np.round(oracle * 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


# What is computed, what it draws, its one setting with its values, and the brute-force version.
NOISES = {
    "the image plus the scaled draw": (
        *(noise.gaussian_noise, noise.draw_normal, "std", noise.GAUSSIAN_STDS),
        oracles.gaussian_noise,
    ),
    "growing with the image": (
        *(noise.speckle_noise, noise.draw_normal, "std", noise.SPECKLE_STDS),
        oracles.speckle_noise,
    ),
    "pepper for small and salt for larger draws": (
        *(noise.impulse_noise, noise.draw_uniform, "share", noise.IMPULSE_SHARES),
        oracles.impulse_noise,
    ),
}


@each_severity
@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_what_its_definition_says(kind, i):
    function, draw, setting, values, oracle = NOISES[kind]
    image, images = inputs()
    draws = draw(KEY, SIDE, SIDE)
    ours = applied(function, images, draws, **{setting: values[i]})
    np.testing.assert_allclose(ours, oracle(image, draws, values[i]), atol=CLOSE)


@each_severity
def test_shot_noise_is_the_quantile_of_the_poisson_distribution(i):
    image, images = inputs()
    draws = noise.draw_shots(KEY, SIDE, SIDE)
    count = noise.SHOT_COUNTS[i]
    ours = applied(noise.shot_noise, images, draws, severity=i + 1, is_levels=True)
    oracle = oracles.shot_noise(image, np.asarray(draws.whole, np.float64), count)
    # A draw within float32's rounding of a step of the distribution falls on either side.
    assert (np.abs(ours - oracle) > CLOSE).mean() < 1e-3


def test_shot_noise_of_values_between_grey_levels_has_their_mean_and_variance():
    images = jnp.full((1, 128, 128, 3), 100.37 / 255)
    draws = noise.draw_shots(KEY, 128, 128)
    ours = applied(
        noise.shot_noise, images, jax.tree.map(jnp.asarray, draws), severity=1, is_levels=False
    )
    mean = 60 * 100.37 / 255
    # Five standard errors over 49152 values: of a Poisson mean sqrt(m / n), of its variance about
    # m sqrt(2 / n). The level below has a mean 0.087 smaller, three times the first tolerance.
    assert abs(np.mean(60 * ours) - mean) < 5 * np.sqrt(mean / ours.size)
    assert abs(np.var(60 * ours) - mean) < 5 * mean * np.sqrt(2 / ours.size)


@each_severity
def test_gaussian_blur_is_that_of_scikit_image(i):
    image, images = inputs()
    sigma = blur.GAUSSIAN_SIGMAS[i]
    ours = applied(blur.gaussian_blur, images, sigma=sigma)
    np.testing.assert_allclose(ours, oracles.gaussian_blur(image, sigma), atol=CLOSE)


# Disks of more than 8 pixels are smoothed by more taps.
@severities(1, 5)
def test_defocus_blur_correlates_with_the_smoothed_disk(i):
    image, images = inputs()
    radius, smoothing = blur.DEFOCUS_DISKS[i]
    ours = applied(blur.defocus_blur, images, radius=radius, smoothing=smoothing)
    np.testing.assert_allclose(ours, oracles.defocus_blur(image, radius, smoothing), atol=CLOSE)


@each_severity
def test_zoom_blur_averages_clipped_zooms(i):
    image, images = inputs()
    last, step = blur.ZOOM_RANGES[i]
    ours = applied(blur.zoom_blur, images, severity=i + 1)
    np.testing.assert_allclose(ours, oracles.zoom_blur(image, last, step), atol=CLOSE)


@each_severity
@pytest.mark.parametrize("faithful", [True, False], ids=["copying", "swapping"])
def test_glass_blur_walks_as_the_loop_does(i, faithful):
    image, images = inputs()
    sigma, reach, walks = glass.GLASS_SETTINGS[i]
    draws = glass.draw_displacements(KEY, SIDE, SIDE, severity=i + 1)
    ours = applied(glass.glass_blur, images, draws, severity=i + 1, faithful=faithful)
    oracle = oracles.glass_blur(image, np.asarray(draws)[:walks], sigma, reach, swap=not faithful)
    # A blurred value within float32's rounding of a grey level can be truncated to the one below:
    # then a pixel and its copies differ by a level, before the second blur.
    assert np.abs(ours - oracle).max() < 1 / 255
    assert np.abs(ours - oracle).mean() < 1e-2 / 255


def test_glass_displacements_are_uniform_and_leave_out_the_upper_end():
    draws = np.asarray(glass.draw_displacements(KEY, SIDE, SIDE, severity=4))
    values, counts = np.unique(draws, return_counts=True)
    assert values.tolist() == [-3, -2, -1, 0, 1, 2]
    # Five standard deviations of a count.
    assert np.abs(counts - draws.size / 6).max() < 5 * np.sqrt(draws.size * 5 / 36)


@each_severity
@pytest.mark.parametrize("angle", [-45.0, 40.0])
def test_motion_blur_sums_the_taps_of_imagemagick(i, angle, monkeypatch):
    monkeypatch.setattr(filters, "REFERENCE_SIZE", 24)
    image, images = inputs(24)
    radius, sigma = motion.MOTION_SETTINGS[i]
    taps = applied(
        motion.blur_along,
        images,
        jnp.float32(angle),
        settings=motion.MOTION_SETTINGS,
        severity=i + 1,
    )
    np.testing.assert_allclose(taps, oracles.moved(image, angle, radius, sigma), atol=CLOSE)


def test_motion_blur_truncates_sixteen_bit_values():
    image, images = inputs()
    ours = applied(motion.motion_blur, images, jnp.float32(20.0), severity=1)
    # One value in 257 is near enough to the step for float32 to matter.
    off_by_a_level(ours, oracles.motion_blur(image, 20.0, 10, 3), share=1e-3)


@each_severity
def test_snow_is_zoomed_cut_and_blurred_noise(i):
    image, images = inputs()
    setting = weather.SNOW_SETTINGS[i]
    draws = weather.draw_snow(KEY, SIDE, SIDE)
    ours = applied(weather.snow, images, draws, severity=i + 1)
    flakes = weather.flake_counts(setting.zoom, SIDE, SIDE)
    normal = np.asarray(draws.normal)[: math.prod(flakes)].reshape(flakes)
    oracle = oracles.snow(image, normal, float(draws.angle), *setting)
    # The snow layer is truncated twice; it is added from two places.
    assert np.abs(ours - oracle).max() < 3 / 255
    assert np.abs(ours - oracle).mean() < 1e-2 / 255


@each_severity
def test_frost_adds_a_window_of_one_of_the_first_five_pictures(i):
    image, images = inputs()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 60, 70, 3)).astype(np.uint8)
    own, added = weather.FROST_WEIGHTS[i]
    for uniforms in ((0.0, 0.0, 0.0), (0.99, 0.99, 0.99), (0.5, 0.3, 0.7)):
        ours = applied(
            weather.frost,
            images,
            weather.FrostDraws(jnp.asarray(uniforms, jnp.float32)),
            image_weight=own,
            frost_weight=added,
            pictures=frost_pictures.as_frost_pictures(pictures),
            faithful=True,
        )
        oracle = oracles.frost(image, uniforms, own, added, pictures)
        np.testing.assert_allclose(ours, oracle, atol=CLOSE)


@each_severity
def test_fog_is_a_plasma_fractal(i):
    image, images = inputs()
    strength, decay = weather.FOG_SETTINGS[i]
    numbers = weather.draw_fog(KEY, SIDE, SIDE)
    ours = applied(weather.fog, images, numbers, severity=i + 1)
    oracle = oracles.fog(image, np.asarray(numbers, np.float64), strength, decay)
    # Heights are sums of numbers up to 10^4 and are then divided by their range.
    np.testing.assert_allclose(ours, oracle, atol=10 * CLOSE)


@each_severity
def test_brightness_adds_to_the_value_of_hsv(i):
    image, images = inputs()
    summand = digital.BRIGHTNESS_SUMMANDS[i]
    ours = applied(digital.brightness, images, summand=summand)
    np.testing.assert_allclose(ours, oracles.brightness(image, summand), atol=CLOSE)


@each_severity
def test_saturate_changes_the_saturation_of_hsv(i):
    image, images = inputs()
    factor, summand = digital.SATURATION_CHANGES[i]
    ours = applied(digital.saturate, images, factor=factor, summand=summand)
    np.testing.assert_allclose(ours, oracles.saturate(image, factor, summand), atol=CLOSE)


@each_severity
def test_contrast_shrinks_around_the_mean_of_each_channel(i):
    image, images = inputs()
    factor = digital.CONTRAST_FACTORS[i]
    ours = applied(digital.contrast, images, factor=factor)
    np.testing.assert_allclose(ours, oracles.contrast(image, factor), atol=CLOSE)


@each_severity
@pytest.mark.parametrize("size", [(224, 224), (70, 33)])
def test_pixelate_is_exactly_two_box_resizings_of_pillow(i, size):
    # Pillow may take the rows of tall images first, which rounds otherwise; the benchmark's are
    # square.
    width, height = size
    factor = digital.PIXELATE_FACTORS[i]
    levels = np.asarray(Image.fromarray(photo(96)).resize(size))
    low = int(width * factor), int(height * factor)
    pillow = Image.fromarray(levels).resize(low, Image.Resampling.BOX)
    pillow = np.asarray(pillow.resize(size, Image.Resampling.BOX))
    images = jnp.asarray(levels, jnp.float32)[None] / 255.0
    ours = applied(digital.pixelate, images, factor=factor)
    np.testing.assert_array_equal(np.round(ours * 255), pillow)


@each_severity
@pytest.mark.parametrize(
    "size",
    [(37, 51), *(pytest.param(size, marks=pytest.mark.slow) for size in ((64, 64), (50, 32)))],
)
def test_jpeg_compression_is_that_of_libjpeg(i, size):
    quality = jpeg.JPEG_QUALITIES[i]
    levels = np.asarray(Image.fromarray(photo(96)).resize(size))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    codec = np.asarray(Image.open(file), np.int32)
    ours = applied(
        jpeg.jpeg_compression, jnp.asarray(levels, jnp.float32)[None] / 255.0, severity=i + 1
    )
    difference = np.abs(np.round(ours * 255) - codec)
    # Fixed-point against float32 transforms: now and then a coefficient lies on the boundary of two
    # steps and falls the other way, which moves one block of these few by a step's share.
    assert difference.mean() < 1
    assert (difference > 1).mean() < 0.2


@each_severity
def test_elastic_transform_interpolates_twice(i, monkeypatch):
    monkeypatch.setattr(filters, "REFERENCE_SIZE", 224)
    image, images = inputs(224)
    setting = elastic.ELASTIC_SETTINGS[i]
    draws = elastic.draw_elastic(KEY, 224, 224)
    ours = applied(elastic.elastic_transform, images, draws, severity=i + 1)
    oracle = oracles.elastic_transform(
        image, np.asarray(draws.corners, np.float64), np.asarray(draws.fields, np.float64), *setting
    )
    # Positions up to several hundred pixels have an error of 1e-4 pixels in float32, and an edge
    # changes by up to 255 levels a pixel.
    assert np.abs(ours - oracle).max() < 0.5 / 255
    assert np.abs(ours - oracle).mean() < 0.01 / 255


# Water, then mud.
@severities(1, 5)
def test_spatter_draws_water_or_mud(i):
    image, images = inputs()
    setting = spatter.SPATTER_SETTINGS[i]
    normal = spatter.draw_spatter(KEY, SIDE, SIDE)
    ours = applied(spatter.spatter, images, normal, severity=i + 1)
    oracle = oracles.spatter(image, np.asarray(normal, np.float64), *setting)
    # Levels of the liquid and of the height map are truncated: near a step float32 can differ.
    assert np.abs(ours - oracle).mean() < 0.02 / 255
    assert (np.abs(ours - oracle) > 1 / 255).mean() < 0.01


def test_edges_are_followed_along_weak_gradients():
    rng = np.random.default_rng(1)
    levels = np.round(oracles.gaussian(rng.standard_normal((60, 60)), 2.0) * 900 + 120)
    levels = np.clip(levels, 0, 255)
    find_edges = jax.jit(functools.partial(edges.canny_edges, low=50.0, high=150.0))
    ours = find_edges(jnp.asarray(levels, jnp.float32)[None])[0]
    expected = oracles.canny(levels, 50, 150)
    strong_alone = oracles.canny(levels, 150, 150)
    assert expected.sum() > strong_alone.sum() > 0
    np.testing.assert_array_equal(np.asarray(ours), expected)


def test_distances_are_shortest_paths():
    rng = np.random.default_rng(2)
    sources = rng.random((24, 37)) < 0.004
    measure = jax.jit(functools.partial(edges.chamfer_distance, limit=12.0))
    ours = measure(jnp.asarray(sources)[None])[0]
    expected = np.minimum(oracles.chamfer(sources), 12)
    assert sources.any() and (expected == 12).any() and len(np.unique(expected)) > 20
    np.testing.assert_allclose(np.asarray(ours), expected, atol=1e-4)  # sums of 12 float32


def test_an_image_of_one_level_is_not_equalised():
    levels = jnp.full((1, 9, 9), 7.0)
    equalise = jax.jit(functools.partial(edges.equalised, largest=20))
    np.testing.assert_array_equal(equalise(levels), 7.0)
