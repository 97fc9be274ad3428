"""The public function: sizes, dtypes, keys, errors; frost pictures; the sheet."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lska_jax.commands.robustness import main
from lska_jax.robustness import corruptions
from lska_jax.robustness.corruptions import (
    ALL_CORRUPTIONS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corrupt,
    frost_is_comparable,
    frost_pictures,
    load_frost_pictures,
    sample_sheet,
    synthetic_frost_pictures,
)
from lska_jax.robustness.corruptions.table import corruption_of

KEY = jax.random.key(0)
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 240, 250, 3)).astype(np.uint8)


def levels(batch=2, height=33, width=45, seed=0):
    """Return (B, H, W, 3) uint8, oblong and of odd sizes: smooth shades with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    shades = np.stack([0.2 + 0.6 * x, 0.8 - 0.5 * y, 0.5 + 0.3 * np.sin(9 * x * y)], axis=-1)
    shades = shades + 0.05 * rng.standard_normal((batch, *shades.shape))
    return np.uint8(np.clip(shades, 0, 1) * 255)


def corrupted(images, name, severity=5, **options):
    return np.asarray(corrupt(images, name, severity, frost_pictures=PICTURES, **options))


def test_names_are_those_of_the_benchmark_in_its_order():
    assert len(CORRUPTIONS) == 15
    assert CORRUPTIONS[:4] == ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur")
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert ALL_CORRUPTIONS == CORRUPTIONS + EXTRA_CORRUPTIONS
    assert SEVERITIES == (1, 2, 3, 4, 5)
    assert all(getattr(corruptions, name) is not None for name in corruptions.__all__)


@pytest.mark.parametrize("name", ["defocus_blur", "frost"])
def test_sizes_above_224_px_work(name):
    images = levels(1, 230, 299)
    assert corrupted(images, name, 1, key=KEY).shape == images.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_CORRUPTIONS)
def test_an_oblong_image_is_corrupted_whatever_its_batch(name):
    images = levels()
    keys = jax.random.split(KEY, len(images))
    together = corrupted(images, name, keys=keys)
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    assert np.any(together != images)
    turned = corrupted(images[::-1], name, keys=keys[::-1])
    # A sum may run over the batch in another order for another place: a level at most.
    assert np.abs(together.astype(int) - turned[::-1]).max() <= 1


@pytest.mark.slow
def test_water_falls_on_an_oblong_image_black_or_not_whatever_its_batch():
    # Spatter is mud at severity 5 and water at 3.
    images = levels().astype(np.float32) / 255
    images[1] = 0
    keys = jax.random.split(KEY, len(images))
    together = corrupted(images, "spatter", 3, keys=keys)
    assert np.isfinite(together).all()
    assert all(np.any(ours != image) for ours, image in zip(together, images, strict=True))
    turned = corrupted(images[::-1], "spatter", 3, keys=keys[::-1])
    assert np.abs(together - turned[::-1]).max() <= 1 / 255


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "snow", "fog", "spatter"])
def test_chance_comes_from_the_key_alone(name):
    images = levels()
    first = corrupted(images, name, key=KEY)
    np.testing.assert_array_equal(first, corrupted(images, name, key=KEY))
    assert np.any(first != corrupted(images, name, key=jax.random.key(1)))
    same = np.stack([images[0], images[0]])
    drawn = corrupted(same, name, key=KEY)
    assert np.any(drawn[0] != drawn[1])


def test_one_key_is_folded_with_the_place_in_the_batch():
    images = levels()
    keys = jnp.stack([jax.random.fold_in(KEY, i) for i in range(2)])
    np.testing.assert_array_equal(
        corrupted(images, "gaussian_noise", key=KEY), corrupted(images, "gaussian_noise", keys=keys)
    )


@pytest.mark.parametrize("name", ["brightness", "gaussian_noise", "shot_noise", "pixelate"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_floats_stay_floats_and_mean_the_same_as_uint8(name, dtype):
    images = levels()
    floats = corrupt(jnp.asarray(images / 255.0, dtype), name, 2, key=KEY)
    assert floats.dtype == dtype
    # bfloat16 holds 8 bits: a rounding of a level before, another one after; truncation one more.
    expected = corrupted(images, name, 2, key=KEY).astype(float)
    shown = np.asarray(floats, np.float64) * 255
    limit = 1.01 if dtype == jnp.float32 else 4
    assert np.mean(np.abs(shown - expected) > limit) < (0.02 if name != "shot_noise" else 0.3)


def test_uint8_is_truncated_as_the_generator_does_and_rounded_if_asked():
    images = np.full((1, 8, 8, 3), 100, np.uint8)
    images[:, :4] = 103  # the mean is 101.5: contrast 0.4 gives 100.9 and 102.1
    faithful = corrupted(images, "contrast", 1)
    rounded = corrupted(images, "contrast", 1, faithful=False)
    assert (faithful[0, 0, 0, 0], faithful[0, 7, 0, 0]) == (102, 100)
    assert (rounded[0, 0, 0, 0], rounded[0, 7, 0, 0]) == (102, 101)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jpeg_compression", "motion_blur", "frost"])
def test_it_runs_inside_jit_and_vmap(name):
    images = jnp.asarray(np.stack([levels(), levels(seed=1)]))
    keys = jax.random.split(KEY, (2, 2))

    @jax.jit
    @jax.vmap
    def both(images, keys):
        return corrupt(images, name, 5, keys=keys, frost_pictures=PICTURES)

    ours = np.asarray(both(images, keys)).astype(int)
    for i in range(2):
        expected = corrupted(images[i], name, keys=keys[i])
        assert np.abs(ours[i] - expected).max() <= 1


def test_a_black_image_survives():
    black = np.zeros((1, 16, 16, 3), np.float32)
    for name in ("brightness", "saturate", "fog", "contrast", "shot_noise"):
        assert np.isfinite(corrupted(black, name, 2, key=KEY)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gausian_noise"}, "did you mean 'gaussian_noise'"),
        ({"name": ""}, "The names are gaussian_noise, "),
        ({"severity": 0}, "severity is 0; it must be one of"),
        ({"severity": 6}, "severity is 6"),
        ({"images": levels()[0]}, r"shape \(33, 45, 3\)"),
        ({"images": levels()[..., :1]}, r"a batch \(B, H, W, 3\)"),
        ({"images": levels(2, 4, 32)}, "8 px or more"),
        ({"images": levels().astype(np.int32)}, "images are int32; give uint8"),
        ({"key": None}, "such as key=jax.random.key"),
        ({"keys": jax.random.split(KEY, 2)}, "not both"),
        ({"key": jax.random.split(KEY, 2)}, r"of shape \(\)"),
        ({"key": None, "keys": jax.random.split(KEY, 3)}, r"of shape \(2,\)"),
        ({"key": jnp.zeros(2, jnp.uint32)}, "typed PRNG keys"),
    ],
    ids=str,
)
def test_bad_input_is_said_clearly(change, message):
    given = {"images": levels(), "name": "gaussian_noise", "severity": 1, "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(corrupt)(
            given.pop("images"), given.pop("name"), given.pop("severity"), **given
        )


def test_corruptions_without_chance_need_no_key():
    without = [name for name in ALL_CORRUPTIONS if corruption_of(name).draw is None]
    assert len(without) == 8
    assert corrupted(levels(), "contrast").shape == (2, 33, 45, 3)


@pytest.mark.slow
def test_faithful_frost_never_takes_the_sixth_picture():
    pictures = np.zeros((6, 240, 240, 3), np.uint8)
    pictures[5] = 255
    black = np.zeros((64, 8, 8, 3), np.uint8)
    faithful = np.asarray(corrupt(black, "frost", 5, key=KEY, frost_pictures=pictures))
    assert not faithful.any()
    every = corrupt(black, "frost", 5, key=KEY, frost_pictures=pictures, faithful=False)
    # A sixth of 64 images is 11; none has a chance of 1e-5.
    assert np.asarray(every).any()


def test_only_the_official_pictures_are_comparable(tmp_path):
    assert not frost_is_comparable(None)
    sizes = (PICTURES.shape[1:3],) * len(PICTURES)
    for source in (frost_pictures.SYNTHETIC, frost_pictures.OTHER):
        assert not frost_is_comparable(frost_pictures.FrostPictures(PICTURES, sizes, source))
    for number, suffix in enumerate(["png"] * 3 + ["jpg"] * 3):
        Image.fromarray(PICTURES[number]).save(tmp_path / f"frost{number + 1}.{suffix}")
    loaded = load_frost_pictures(tmp_path)
    assert loaded.pixels.shape == PICTURES.shape
    np.testing.assert_array_equal(loaded.pixels[:3], PICTURES[:3])
    assert not frost_is_comparable(loaded)


def test_pictures_of_several_sizes_are_cut_inside_their_own(tmp_path):
    for number, size in enumerate([(300, 240), (230, 260)]):
        Image.new("RGB", size, "white").save(tmp_path / f"{number}.png")
    pictures = load_frost_pictures(tmp_path)
    assert pictures.sizes == ((240, 300), (260, 230))
    black = np.zeros((16, 32, 32, 3), np.uint8)
    ours = np.asarray(corrupt(black, "frost", 1, key=KEY, frost_pictures=pictures))
    # White everywhere: nothing of what fills the smaller picture up is seen. 0.4 * 255 = 102.
    assert np.unique(ours).tolist() in ([102], [101, 102])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_synthetic_crystals_are_the_same_every_time(count, monkeypatch):
    assert frost_pictures._SYNTHETIC_COUNT == 6
    monkeypatch.setattr(frost_pictures, "_SYNTHETIC_COUNT", count)
    pictures = synthetic_frost_pictures.__wrapped__()
    assert pictures.source == "synthetic"
    assert pictures.pixels.shape == (count, 448, 448, 3)
    assert all(30 < picture.std() < 90 for picture in pictures.pixels)
    again = frost_pictures._draw_crystals(np.random.default_rng(count - 1))
    np.testing.assert_array_equal(pictures.pixels[-1], again)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: folder / "none", FileNotFoundError, "No folder of frost pictures"),
        (lambda folder: folder, ValueError, "holds no PNG or JPEG file"),
        (lambda folder: _with_broken_picture(folder), ValueError, "cannot be read"),
    ],
    ids=["missing", "empty", "broken"],
)
def test_a_folder_without_pictures_is_an_error(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        load_frost_pictures(make(tmp_path))


def _with_broken_picture(folder):
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


def test_frost_pictures_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=r"frost_pictures is float32\[2, 2\]"):
        corrupt(levels(), "frost", 1, key=KEY, frost_pictures=np.zeros((2, 2), np.float32))


def test_the_sheet_shows_the_clean_image_and_each_severity():
    images = levels(1, 32, 32)
    sheet = sample_sheet(images, names=("contrast", "brightness"), severities=(1, 5), tile_size=32)
    # Columns are wider than the tiles here: no label runs into the next.
    step = (sheet.width - 4) // 3
    assert step > 36 and sheet.height == 2 * (32 + 18 + 4) + 4
    pixels = np.asarray(sheet)
    np.testing.assert_array_equal(pixels[22:54, 4:36], images[0])
    second = pixels[22:54, 4 + step : 36 + step]
    np.testing.assert_array_equal(second, corrupted(images, "contrast", 1)[0])


@pytest.mark.slow
def test_the_command_writes_a_sheet_of_all_corruptions(tmp_path, capsys):
    Image.fromarray(levels(1, 40, 60)[0]).save(tmp_path / "photo.png")
    sheet = tmp_path / "sheet.png"
    assert main(["--sheet", str(tmp_path / "photo.png"), "--out", str(sheet)]) == 0
    assert "not comparable" in capsys.readouterr().out
    with Image.open(sheet) as drawn:
        assert drawn.height > 19 * 100
