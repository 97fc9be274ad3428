"""Batches of images with objects: their fields, and wide and upright images apart."""

import itertools

import numpy as np
import pytest

from lska_jax.data.digit_scenes import DigitScenes
from lska_jax.data.loader import HostBatch, eval_batches
from lska_jax.data.object_reader import ObjectReader
from lska_jax.data.oriented_batches import (
    oriented_eval_batches,
    oriented_train_batches,
    split_by_orientation,
)
from lska_jax.data.scenes import ObjectImage
from lska_jax.data.sources import BrokenImage

CANVASES = ((24, 32), (32, 24))


class Shapes:
    """Two wide images of three, each with one box around its left half, in the position's grey."""

    name = "shapes"
    class_names = ("half",)

    def __init__(self, length: int = 21) -> None:
        self._length = length
        self.sizes = np.array([(20, 16) if index % 3 == 2 else (16, 20) for index in range(length)])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> ObjectImage:
        height, width = self.sizes[index].tolist()
        mask = np.zeros((1, height, width), bool)
        mask[:, :, : width // 2] = True
        return ObjectImage(
            np.full((height, width, 3), index, np.uint8),
            (height, width),
            np.float32([[0, 0, width // 2, height]]),
            np.int32([0]),
            mask,
            index,
        )

    def path(self, index: int) -> str:
        return f"shapes#{index}"


def readers() -> list[ObjectReader]:
    return [
        ObjectReader(canvas=canvas, bounds=(30, 24), max_objects=3, use_masks=True)
        for canvas in CANVASES
    ]


def train(source: Shapes, start: int = 0, stop: int | None = 21, **loading: int) -> list[HostBatch]:
    batches = oriented_train_batches(
        source,
        readers(),
        split_by_orientation(source.sizes),
        global_batch_size=4,
        seed=3,
        start_step=start,
        stop_step=stop,
        **loading,
    )
    return list(batches)


# --- fields


def test_a_scene_becomes_fields_of_fixed_shapes():
    reader = ObjectReader(canvas=(32, 40), bounds=(40, 32), max_objects=4, use_masks=True)
    fields = reader(Shapes()[3])
    assert {name: (np.shape(fields[name]), np.asarray(fields[name]).dtype) for name in fields} == {
        name: (field.shape, np.dtype(field.dtype if name != "position" else np.int64))
        for name, field in reader.fields.items()
    }
    assert fields["size"].tolist() == [32, 40]
    assert fields["original_size"].tolist() == [16, 20]
    assert fields["boxes"].tolist() == [[0, 0, 20, 32]] + [[0, 0, 0, 0]] * 3
    assert fields["box_mask"].tolist() == [True, False, False, False]
    masks = np.unpackbits(fields["masks"], axis=-1)
    assert masks[0, :, :20].all() and not masks[0, :, 20:].any() and not masks[1:].any()


def test_what_is_beyond_the_image_is_zero():
    fields = ObjectReader(canvas=(48, 48), bounds=(40, 32), max_objects=1)(Shapes()[3])
    height, width = fields["size"]
    assert (fields["image"][:height, :width] == 3).all()
    assert not fields["image"][height:].any() and not fields["image"][:, width:].any()


def test_training_flips_image_boxes_and_masks_together():
    reader = ObjectReader(
        canvas=(16, 24), bounds=(20, 16), max_objects=1, use_masks=True, flip_prob=1.0
    )
    fields = reader(Shapes()[0], np.random.default_rng(0))
    assert fields["boxes"].tolist() == [[10, 0, 20, 16]]
    masks = np.unpackbits(fields["masks"], axis=-1)
    assert masks[0, :, 10:20].all() and not masks[0, :, :10].any() and not masks[0, :, 20:].any()


def test_objects_that_a_crop_leaves_out_are_gone():
    reader = ObjectReader(
        canvas=(16, 16), bounds=(160, 128), max_objects=1, use_masks=True, flip_prob=0.0
    )
    counts = {
        int(reader(Shapes()[0], np.random.default_rng(seed))["box_mask"].sum()) for seed in range(9)
    }
    assert counts == {0, 1}


def test_a_scene_without_objects_has_fields_like_any_other():
    example = Shapes()[0]._replace(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int32),
        masks=np.zeros((0, 16, 20), bool),
    )
    fields = readers()[0](example)
    assert not fields["box_mask"].any() and not fields["masks"].any()


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Shapes()[0]._replace(size=(9, 20)), "its annotations are for 9 x 20"),
        (Shapes()[2], "does not fit into 24 x 32"),
        (Shapes()[0]._replace(image=b"no image"), "not an image file"),
        (
            Shapes()[0]._replace(
                boxes=np.tile(np.float32([[0, 0, 5, 5]]), (4, 1)), labels=np.zeros(4, np.int32)
            ),
            "4 objects are more than the limit of 3",
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_broken_with_a_reason(example, reason):
    with pytest.raises(BrokenImage, match=reason):
        readers()[0](example)


def test_a_canvas_whose_masks_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        ObjectReader(canvas=(16, 20), bounds=(20, 16), max_objects=1)


# --- orientation


def test_each_batch_holds_images_of_one_kind_as_often_as_there_are():
    batches = train(Shapes())
    kinds = [CANVASES.index(batch["image"].shape[1:3]) for batch in batches]
    # Two thirds of the images are wide.
    assert kinds.count(0) == 14 and max(len(list(run)) for _, run in itertools.groupby(kinds)) == 2
    for batch in batches:
        heights, widths = batch["original_size"].T
        assert ((widths > heights) == (batch["image"].shape[2] == 32)).all()


def test_no_example_is_dropped_at_the_seam_of_two_epochs():
    read = np.concatenate([batch["index"] for batch in train(Shapes())])
    # 14 batches of 4 out of 14 wide images, 7 batches of 4 out of 7 upright ones.
    assert set(np.bincount(read, minlength=21)) == {4}


def test_resuming_at_a_step_gives_the_same_batches():
    whole, resumed = train(Shapes()), train(Shapes(), start=17)
    assert len(resumed) == 4
    for before, after in zip(whole[17:], resumed, strict=True):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("kept", [[0, 1, 3, 4, 6], [2, 5, 8]])
def test_one_kind_alone_needs_no_other(kept):
    source = Shapes()
    groups = tuple(np.intersect1d(group, kept) for group in split_by_orientation(source.sizes))
    batches = oriented_train_batches(
        source, readers(), groups, global_batch_size=2, seed=0, stop_step=6
    )
    assert set(np.concatenate([batch["index"] for batch in batches])) == set(kept)


def test_an_evaluation_visits_every_example_once():
    source = Shapes()
    batches = list(
        oriented_eval_batches(
            source, readers(), split_by_orientation(source.sizes), global_batch_size=4
        )
    )
    assert len(batches) == 4 + 2
    index = np.concatenate([batch["index"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert sorted(index[mask]) == list(range(21)) and set(index[~mask]) == {-1}
    position = np.concatenate([batch["position"] for batch in batches])
    np.testing.assert_array_equal(position, index)


def test_scenes_of_digits_pass_through_the_loader():
    reader = ObjectReader(canvas=(128, 128), bounds=(128, 128), max_objects=8, use_masks=True)
    batch = next(eval_batches(DigitScenes("test"), reader, global_batch_size=4))
    assert batch["box_mask"].sum() == sum(len(DigitScenes("test")[i].labels) for i in range(4))
    np.testing.assert_array_equal(batch["image"][2], DigitScenes("test")[2].image)
