"""Normalisation, random erasing, Mixup and CutMix against plain NumPy versions of timm 0.4.12's.

Every key is fixed, so the distribution tests give the same answer each time. Their threshold,
p > 0.001, was chosen before they ran; a wrong distribution gives p below 1e-10 with these samples.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from jax.sharding import NamedSharding, PartitionSpec

from lska_jax.data.mixing import MixingSpec, mix, normalise, random_erasing, smooth_one_hot

SMALLEST_P = 1e-3
COUNT = 3000  # draws for each distribution
BATCH = 4
CLASSES = BATCH  # labels 0..3: a target then tells the share of each image

MIXUP = MixingSpec(mixup_alpha=0.8)
CUTMIX = MixingSpec(cutmix_alpha=1.0)
BOTH = MixingSpec(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.3, label_smoothing=0.1)
# Of images in which nothing but CutMix's boxes would need many pixels.
SMALL = (6, 5)


@functools.partial(jax.jit, static_argnums=3)
def mix_with_each(
    keys: jax.Array, images: jax.Array, is_usable: jax.Array, spec: MixingSpec
) -> tuple[jax.Array, jax.Array]:
    def mix_once(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return mix(images, jnp.arange(BATCH), is_usable, key, num_classes=CLASSES, spec=spec)

    return jax.vmap(mix_once)(keys)


@functools.cache
def draw_mixes(
    spec: MixingSpec, *, size: tuple[int, int] = (24, 20), masked: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mix the same batch, of which one image may be masked, with many keys.

    Image i has the constant value i, so that a mixed pixel tells its shares.

    Returns:
      For every key, image and pixel the share that is the image's own (COUNT, BATCH, H, W), NaN
      where image and partner are the same; and targets (COUNT, BATCH, CLASSES).
    """
    values = np.arange(BATCH, dtype=np.float32)
    images = jnp.asarray(np.broadcast_to(values[:, None, None, None], (BATCH, *size, 1)))
    is_usable = jnp.arange(BATCH) != (BATCH if masked is None else masked)

    keys = jax.random.split(jax.random.key(7), COUNT)
    mixed, targets = mix_with_each(keys, images, is_usable, spec)
    partner = values[::-1, None, None]
    own = (np.asarray(mixed)[..., 0] - partner) / (values[:, None, None] - partner)
    return own, np.asarray(targets)


def boxes_of(is_inside: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the bounding box of the True pixels of each mask (N, H, W) that has any."""
    boxes = []
    for one in is_inside[is_inside.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        boxes.append((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    return boxes


def assert_same_distribution(ours: np.ndarray, oracle: np.ndarray) -> None:
    assert scipy.stats.ks_2samp(ours, oracle).pvalue > SMALLEST_P


# Normalisation


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = normalise(jnp.asarray(images), mean=mean, std=std)
    expected = (images.astype(np.float64) / 255 - mean) / std
    assert result.dtype == jnp.float32
    # Values reach 2.7, where float32 steps are 2.4e-7; there are four roundings.
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


# Random erasing


@functools.cache
def erase(probability: float, *, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    """Erase images of the value 1000, which noise never takes: (COUNT, H, W, 2)."""
    images = jnp.full((COUNT, *size, 2), 1000.0)
    return np.asarray(
        jax.jit(functools.partial(random_erasing, probability=probability))(
            images, jax.random.key(3)
        )
    )


def oracle_erasing_box(
    rng: np.random.Generator, height: int, width: int
) -> tuple[int, int, int, int] | None:
    """Draw top, left, height, width as timm 0.4.12 does."""
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * height * width
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if box_height < height and box_width < width:
            top = rng.integers(0, height - box_height, endpoint=True)
            left = rng.integers(0, width - box_width, endpoint=True)
            return int(top), int(left), box_height, box_width
    return None


def test_erasing_with_probability_zero_returns_the_images() -> None:
    images = jnp.ones((2, 4, 4, 3))
    assert random_erasing(images, jax.random.key(0), probability=0.0) is images


def test_erasing_happens_with_the_given_probability() -> None:
    erased = (erase(0.25) != 1000).any(axis=(1, 2, 3))
    # About 0.2 % of the images find no box that fits, which the tolerance of the test covers.
    assert scipy.stats.binomtest(int(erased.sum()), COUNT, 0.25).pvalue > SMALLEST_P


def test_erased_pixels_form_one_full_rectangle_over_all_channels() -> None:
    is_erased = erase(1.0) != 1000
    assert (is_erased[..., 0] == is_erased[..., 1]).all()
    is_erased = is_erased[..., 0]
    for one, (rows, columns) in zip(is_erased, boxes_of(is_erased), strict=True):
        assert one[rows, columns].all()
        assert one.sum() == one[rows, columns].size


@pytest.mark.parametrize("size", [(24, 20), pytest.param((12, 40), marks=pytest.mark.slow)])
def test_erased_rectangles_are_distributed_as_the_reference_draws_them(
    size: tuple[int, int],
) -> None:
    boxes = boxes_of((erase(1.0, size=size) != 1000)[..., 0])
    rng = np.random.default_rng(5)
    drawn = [oracle_erasing_box(rng, *size) for _ in range(COUNT)]
    tops, lefts, heights, widths = np.array([box for box in drawn if box]).T
    ours_rows = np.array([(rows.start, rows.stop) for rows, _ in boxes])
    ours_columns = np.array([(columns.start, columns.stop) for _, columns in boxes])
    ours_heights, ours_widths = np.diff(ours_rows)[:, 0], np.diff(ours_columns)[:, 0]
    assert_same_distribution(ours_rows[:, 0], tops)
    assert_same_distribution(ours_columns[:, 0], lefts)
    assert_same_distribution(ours_heights, heights)
    assert_same_distribution(ours_widths, widths)
    assert_same_distribution(ours_heights * ours_widths, heights * widths)
    assert_same_distribution(ours_heights / ours_widths, heights / widths)


def test_erased_area_and_ratio_stay_within_their_bounds() -> None:
    boxes = boxes_of((erase(1.0) != 1000)[..., 0])
    heights, widths = np.array([(r.stop - r.start, c.stop - c.start) for r, c in boxes]).T
    # Each side was rounded by at most half a pixel.
    assert ((heights + 0.5) * (widths + 0.5)).min() >= 0.02 * 24 * 20
    assert ((heights - 0.5) * (widths - 0.5)).max() <= 24 * 20 / 3
    assert ((heights + 0.5) / (widths - 0.5)).min() >= 0.3
    assert ((heights - 0.5) / (widths + 0.5)).max() <= 1 / 0.3


def test_erased_pixels_are_independent_standard_normal_noise() -> None:
    images = erase(1.0)[:200]
    noise = images[images != 1000]
    assert scipy.stats.kstest(noise, "norm").pvalue > SMALLEST_P
    first, second = (images[..., channel][images[..., 0] != 1000] for channel in (0, 1))
    assert scipy.stats.pearsonr(first, second).pvalue > SMALLEST_P
    assert scipy.stats.pearsonr(noise[2:], noise[:-2]).pvalue > SMALLEST_P


# Targets


def test_label_smoothing_gives_the_off_and_on_values_of_the_reference() -> None:
    targets = np.asarray(smooth_one_hot(jnp.array([2, 0]), num_classes=5, smoothing=0.1))
    off, on = 0.1 / 5, 1 - 0.1 + 0.1 / 5
    expected = [[off, off, on, off, off], [on, off, off, off, off]]
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, expected, rtol=2e-7)  # float32


def test_targets_without_smoothing_are_one_hot() -> None:
    targets = smooth_one_hot(jnp.array([1]), num_classes=3, smoothing=0.0)
    np.testing.assert_array_equal(targets, [[0, 1, 0]])


@pytest.mark.parametrize(
    "spec",
    [MixingSpec(), BOTH, *(pytest.param(s, marks=pytest.mark.slow) for s in (MIXUP, CUTMIX))],
)
def test_targets_sum_to_one(spec: MixingSpec) -> None:
    _, targets = draw_mixes(spec, size=SMALL)
    np.testing.assert_allclose(targets.sum(axis=-1), 1.0, rtol=1e-6)  # float32, four terms
    assert targets.min() >= 0


def test_mixed_targets_are_the_mix_of_the_smoothed_targets() -> None:
    own, targets = draw_mixes(BOTH, size=SMALL)
    smoothed = np.full((BATCH, CLASSES), 0.1 / CLASSES) + 0.9 * np.eye(BATCH)
    share = own.mean(axis=(2, 3))[..., None]
    expected = share * smoothed + (1 - share) * smoothed[::-1]
    np.testing.assert_allclose(targets, expected, atol=2e-6)  # float32 means over 30 pixels


def test_nothing_is_mixed_when_both_are_off() -> None:
    own, targets = draw_mixes(MixingSpec(), size=SMALL)
    np.testing.assert_array_equal(own, 1.0)
    np.testing.assert_array_equal(targets, np.broadcast_to(np.eye(BATCH), targets.shape))


# Mixup


def test_mixup_blends_every_pixel_of_the_batch_by_one_lambda() -> None:
    own, targets = draw_mixes(MIXUP, size=SMALL)
    lam = targets[:, 0, 0]
    np.testing.assert_allclose(own, np.broadcast_to(lam[:, None, None, None], own.shape), atol=3e-6)
    assert np.unique(lam).size == lam.size


def test_mixup_lambda_follows_its_beta_distribution() -> None:
    _, targets = draw_mixes(MIXUP, size=SMALL)
    assert scipy.stats.kstest(targets[:, 0, 0], scipy.stats.beta(0.8, 0.8).cdf).pvalue > SMALLEST_P


def test_the_partner_is_the_flipped_batch() -> None:
    _, targets = draw_mixes(MIXUP, size=SMALL)
    lam = targets[:, 0, 0][:, None, None]
    expected = lam * np.eye(BATCH) + (1 - lam) * np.eye(BATCH)[::-1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)  # float32


def test_the_middle_image_of_an_odd_batch_stays_as_it_is() -> None:
    images = jnp.arange(3.0)[:, None, None, None] * jnp.ones((3, 4, 4, 1))
    mix_three = jax.jit(functools.partial(mix, num_classes=3, spec=MIXUP))
    mixed, targets = mix_three(images, jnp.arange(3), jnp.ones(3, bool), jax.random.key(0))
    np.testing.assert_allclose(mixed[1], images[1], rtol=1e-6)  # float32: lambda + (1 - lambda)
    np.testing.assert_allclose(targets[1], [0, 1, 0], rtol=1e-6)


# CutMix


def oracle_cutmix_box(
    rng: np.random.Generator, height: int, width: int, alpha: float
) -> tuple[int, int, int, int]:
    """Draw top, bottom, left, right as timm 0.4.12 does."""
    side = math.sqrt(1 - rng.beta(alpha, alpha))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = rng.integers(height), rng.integers(width)
    rows = np.clip([row - half_height, row + half_height], 0, height)
    columns = np.clip([column - half_width, column + half_width], 0, width)
    return int(rows[0]), int(rows[1]), int(columns[0]), int(columns[1])


@pytest.mark.parametrize(
    ("size", "alpha"),
    [((24, 20), 1.0), pytest.param((10, 40), 0.5, marks=pytest.mark.slow)],
)
def test_cutmix_boxes_are_distributed_as_the_reference_draws_them(
    size: tuple[int, int], alpha: float
) -> None:
    own, _ = draw_mixes(MixingSpec(cutmix_alpha=alpha), size=size)
    is_pasted = own[:, 0] == 0
    rng = np.random.default_rng(5)
    drawn = np.array([oracle_cutmix_box(rng, *size, alpha) for _ in range(COUNT)])
    areas = (drawn[:, 1] - drawn[:, 0]) * (drawn[:, 3] - drawn[:, 2])
    assert_same_distribution(is_pasted.sum(axis=(1, 2)), areas)
    boxes = boxes_of(is_pasted)
    drawn = drawn[areas > 0]
    assert_same_distribution(np.array([rows.start for rows, _ in boxes]), drawn[:, 0])
    assert_same_distribution(np.array([rows.stop for rows, _ in boxes]), drawn[:, 1])
    assert_same_distribution(np.array([columns.start for _, columns in boxes]), drawn[:, 2])
    assert_same_distribution(np.array([columns.stop for _, columns in boxes]), drawn[:, 3])


@pytest.mark.slow
def test_unclipped_cutmix_boxes_have_the_aspect_of_the_image() -> None:
    own, _ = draw_mixes(CUTMIX, size=(60, 20))
    boxes = [
        (rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in boxes_of(own[:, 0] == 0)
        if rows.start > 0 and rows.stop < 60 and columns.start > 0 and columns.stop < 20
    ]
    heights, widths = np.array(boxes).T
    # Both sides are rounded down to even numbers: 3 * 2 pixels from the width, 2 from the height.
    assert np.abs(heights - 3 * widths).max() <= 6


def test_a_pasted_cutmix_box_is_a_full_rectangle_and_the_same_for_the_whole_batch() -> None:
    own, _ = draw_mixes(CUTMIX)
    assert set(np.unique(own)) == {0.0, 1.0}
    assert (own == own[:, :1]).all()
    is_pasted = own[:, 0] == 0
    pasted = is_pasted[is_pasted.any(axis=(1, 2))]
    for one, (rows, columns) in zip(pasted, boxes_of(is_pasted), strict=True):
        assert one.sum() == one[rows, columns].size


def test_cutmix_lambda_is_the_exact_share_of_own_pixels() -> None:
    own, targets = draw_mixes(CUTMIX)
    diagonal = targets[:, np.arange(BATCH), np.arange(BATCH)]
    counts = own.sum(axis=(2, 3))
    # One float32 rounding of an exact quotient.
    np.testing.assert_allclose(diagonal, counts / (24 * 20), rtol=1.2e-7)


# Both


def test_cutmix_is_chosen_with_the_switch_probability() -> None:
    own, _ = draw_mixes(BOTH, size=SMALL)
    is_cutmix = np.isin(own[:, 0], (0.0, 1.0)).all(axis=(1, 2))
    assert scipy.stats.binomtest(int(is_cutmix.sum()), COUNT, 0.3).pvalue > SMALLEST_P


def test_an_image_whose_partner_is_masked_stays_unmixed() -> None:
    own, targets = draw_mixes(BOTH, size=SMALL, masked=1)
    partner = BATCH - 2
    np.testing.assert_array_equal(own[:, partner], 1.0)
    unmixed = smooth_one_hot(jnp.array([partner]), num_classes=CLASSES, smoothing=0.1)
    np.testing.assert_array_equal(targets[:, partner], np.broadcast_to(unmixed, (COUNT, BATCH)))


def test_images_beside_a_masked_one_are_mixed_as_ever() -> None:
    own, _ = draw_mixes(BOTH, size=SMALL, masked=1)
    np.testing.assert_array_equal(own[:, 0], draw_mixes(BOTH, size=SMALL)[0][:, 0])


# Under jit and on several devices


@jax.jit
def prepare(images: jax.Array, labels: jax.Array, mask: jax.Array, key: jax.Array) -> tuple:
    erase_key, mix_key = jax.random.split(key)
    pixels = normalise(images, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = random_erasing(pixels, erase_key, probability=0.5)
    return mix(pixels, labels, mask, mix_key, num_classes=10, spec=BOTH)


def a_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, 16).astype(np.int32), rng.random(16) < 0.8


def test_the_same_key_gives_the_same_batch_and_another_key_another() -> None:
    first, again, other = (prepare(*a_batch(), jax.random.key(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_all_keys_and_masks_share_one_compilation() -> None:
    images, labels, mask = a_batch()
    prepare(images, labels, mask, jax.random.key(0))
    compiled = prepare._cache_size()
    for seed in range(1, 4):
        prepare(images, labels, np.roll(mask, seed), jax.random.key(seed))
    assert prepare._cache_size() == compiled


@pytest.mark.slow
def test_a_batch_split_over_devices_is_the_same_as_on_one() -> None:
    devices = jax.devices()[:2]
    assert len(devices) == 2, "run with XLA_FLAGS=--xla_force_host_platform_device_count=8"
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    split = NamedSharding(mesh, PartitionSpec("data"))
    for seed in range(3):  # keys that give both Mixup and CutMix
        on_one = prepare(*a_batch(), jax.random.key(seed))
        arrays = [jax.device_put(array, split) for array in a_batch()]
        on_many = prepare(*arrays, jax.random.key(seed))
        assert on_many[0].sharding.is_equivalent_to(split, ndim=4)
        for one, many in zip(on_one, on_many, strict=True):
            # The same operations may be fused differently: float32 steps at 4.
            np.testing.assert_allclose(many, one, rtol=0, atol=1e-6)
