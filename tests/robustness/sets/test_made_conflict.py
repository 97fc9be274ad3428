"""Cue conflicts made of two images each."""

import numpy as np
import pytest
from known_models import PREPARED, reader, write_pictures

from lska_jax.data.sources import BrokenImage, Record
from lska_jax.robustness import evaluate
from lska_jax.robustness.sets.made_conflict import MadeConflicts, swap_amplitudes, swap_patches

BIAS = ("shape_bias", "decided")


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


class Images:
    """Images in memory with a label each."""

    name = "images"

    def __init__(self, images, labels):
        self._images = images
        self.labels = np.array(labels, np.int32)
        self.class_names = tuple(f"class {n}" for n in range(int(max(labels)) + 1))

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return Record(self._images[index], int(self.labels[index]))

    def path(self, index):
        return f"images/{index}.png"


def ten(seed: int = 0) -> MadeConflicts:
    return MadeConflicts(
        Images([noise(16, n) for n in range(10)], [0, 1] * 5), "patches", seed=seed
    )


# --- the two ways


@pytest.mark.parametrize("swap", [swap_patches, swap_amplitudes])
def test_an_image_in_its_own_texture_is_itself(swap):
    image = noise(32)
    np.testing.assert_array_equal(swap(image, image), image)


def test_patches_keep_the_layout_and_take_the_colours():
    shape = np.full((32, 32, 3), 40, np.uint8)
    shape[8:24, 16:] = 200
    texture = np.zeros((32, 32, 3), np.uint8)
    texture[:24] = (60, 10, 10)
    texture[24:] = (10, 250, 10)
    made = swap_patches(shape, texture)
    # As many light pixels in both: every patch off the edges is all of one colour.
    np.testing.assert_array_equal(made[12:20, 20:28], np.broadcast_to((10, 250, 10), (8, 8, 3)))
    np.testing.assert_array_equal(made[:, :12], np.broadcast_to((60, 10, 10), (32, 12, 3)))


def test_what_is_bright_in_the_shape_is_so_whatever_its_colour():
    shape, texture = noise(32), noise(32, 1)
    grey = np.repeat(np.rint(shape @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        swap_patches(shape, texture), swap_patches(grey.astype(np.uint8), texture)
    )


def test_amplitudes_are_those_of_the_texture_and_phases_those_of_the_shape():
    rng = np.random.default_rng(0)
    # Of little contrast: nothing is cut off, and rounding is all that differs.
    shape, texture = (rng.integers(118, 138, (16, 16, 3)).astype(np.uint8) for _ in "12")
    made, wanted, phases = (
        np.fft.fft2(image.astype(float), axes=(0, 1))
        for image in (swap_amplitudes(shape, texture), texture, shape)
    )
    # Rounding adds at most half a level a pixel, in this many directions.
    loss = 3 * 16 * np.sqrt(1 / 12)
    np.testing.assert_allclose(np.abs(made), np.abs(wanted), atol=loss)
    strong = np.abs(wanted) > 4 * loss
    turned = np.angle(made[strong] / phases[strong])
    np.testing.assert_allclose(turned, 0, atol=np.arcsin(1 / 4))


# --- the stimuli of a source


def test_textures_are_of_another_class_and_follow_from_the_seed():
    made = ten()
    assert (made.textures != made.labels).all()
    again, other = ten(), ten(seed=1)
    for index in range(10):
        np.testing.assert_array_equal(made[index].image, again[index].image)
    assert any((made[n].image != other[n].image).any() for n in range(10))


def test_a_stimulus_is_that_of_its_place_alone():
    images = [noise(16, n) for n in range(6)]
    few = MadeConflicts(Images(images[:4], [0, 0, 1, 1]), "fourier")
    # More images of the last class: the first one's texture is of the only other class still.
    assert few.textures[0] == 1
    assert few.path(0).endswith("in the shape of images/0.png")


def test_images_of_several_sizes_become_squares_of_the_shape_image():
    wide = np.zeros((20, 40, 3), np.uint8)
    made = MadeConflicts(Images([wide, noise(9), noise(300)[..., 0]], [0, 1, 2]), "patches")
    assert [made[n].image.shape for n in range(3)] == [(20, 20, 3), (9, 9, 3), (256, 256, 3)]


def test_what_is_too_small_is_broken():
    made = MadeConflicts(Images([noise(7), noise(9)], [0, 1]), "patches")
    with pytest.raises(BrokenImage, match="7 pixels are too few"):
        made[0]


@pytest.mark.parametrize(
    ("labels", "way", "message"),
    [
        ([1, 1], "patches", "images has images of 1 class"),
        ([-1, 1], "patches", "images has images of 1 class"),
        ([0, 1], "style", "no way 'style'.*'patches', 'fourier'"),
    ],
)
def test_what_allows_no_conflict_is_refused(labels, way, message):
    with pytest.raises(ValueError, match=message):
        MadeConflicts(Images([noise(9)] * 2, labels), way)


# --- the sweep


def run(tmp_path, suite, **options):
    write_pictures(tmp_path / "own" / "test", {"a": [0, 0], "b": [1], "c": [2]}, suffix="png")
    (summary,) = evaluate(
        {"known": reader(3)},
        out=tmp_path / "out",
        preprocessing=PREPARED,
        class_names=("a", "b", "c"),
        suite=suite,
        clean_split="test",
        batch_size=8,
        num_workers=0,
        **options,
    )
    return summary


def test_a_model_that_reads_colours_follows_texture(tmp_path):
    summary = run(tmp_path, "made_conflict", clean=f"folder:{tmp_path / 'own'}")
    for part in ("patches", "fourier"):
        bias, decided = (summary.scores[f"made_conflict/{s}/{part}"] for s in BIAS)
        # The pictures are of one colour each, which is all that there is of them.
        assert (bias.score.value, decided.score.value) == (0.0, 1.0)
        assert (bias.provenance, bias.num_images) == ("generated", 4)


def test_it_needs_clean_images(tmp_path):
    with pytest.raises(ValueError, match="3 classes of its own: name its clean images"):
        run(tmp_path, "made_conflict")


def test_a_model_without_any_of_the_sixteen_is_told_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="it has airplane, .*or measure made_conflict"):
        run(tmp_path, "cue_conflict")
