"""Batches: order, shards, seams, resume, padding, broken images."""

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lska_jax.data.examples import Field, LabelledImages
from lska_jax.data.loader import (
    BrokenImages,
    ExampleError,
    HostBatch,
    default_num_workers,
    eval_batches,
    train_batches,
)
from lska_jax.data.sources import BrokenImage, Record

SIZE = 4
LENGTH = 23


class NumberedSource:
    """Images whose pixels all hold their index; it keeps the indices that were read."""

    name = "numbered"
    class_names = ("even", "odd")

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        self.reads.append(index)
        return Record(np.full((SIZE, SIZE, 1), index, np.uint8), index % 2)

    def path(self, index: int) -> str:
        return f"numbered/{index}.jpg"


class KeepOrBreak:
    """A transform for evaluation that leaves pixels alone and refuses some images."""

    image_size = SIZE
    channels = 1

    def __init__(self, broken: Iterable[int] = ()) -> None:
        self._broken = frozenset(broken)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if (number := int(image[0, 0, 0])) in self._broken:
            raise BrokenImage(f"number {number} is cut short")
        return image


class AddNoise(KeepOrBreak):
    """The same for training, with random pixels beside the first."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # type: ignore[override]
        noisy = super().__call__(image).copy()
        noisy[1:] = rng.integers(0, 256, noisy[1:].shape)
        return noisy


def train(
    *, broken: Iterable[int] = (), source: NumberedSource | None = None, **arguments: Any
) -> list[HostBatch]:
    """Return batches 0 to 9 of 8 examples, unless told otherwise."""
    arguments = {"global_batch_size": 8, "seed": 0, "stop_step": 10} | arguments
    return list(
        train_batches(source or NumberedSource(), LabelledImages(AddNoise(broken)), **arguments)
    )


def evaluate(
    *, length: int = LENGTH, broken: Iterable[int] = (), **arguments: Any
) -> list[HostBatch]:
    return list(
        eval_batches(NumberedSource(length), LabelledImages(KeepOrBreak(broken)), **arguments)
    )


def assert_same_batches(ours: Sequence[HostBatch], expected: Sequence[HostBatch]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def indices(batches: Iterable[HostBatch]) -> list[int]:
    return [index for batch in batches for index in batch["index"].tolist()]


# Content


def test_batches_have_the_documented_shapes_and_types() -> None:
    (batch,) = train(stop_step=1)
    shapes = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert shapes == {
        "image": ((8, SIZE, SIZE, 1), np.uint8),
        "label": ((8,), np.int32),
        "mask": ((8,), np.bool_),
        "index": ((8,), np.int64),
    }


def test_image_label_and_index_of_a_row_belong_together() -> None:
    for batch in train():
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
        np.testing.assert_array_equal(batch["label"], batch["index"] % 2)
        assert batch["mask"].all()


def test_batches_larger_than_a_part_keep_their_order() -> None:
    large = train(global_batch_size=80, stop_step=2)
    assert indices(large) == indices(train(global_batch_size=8, stop_step=20))


# Order and randomness


def test_the_same_seed_gives_the_same_batches() -> None:
    assert_same_batches(train(), train())


def test_another_seed_gives_another_order_and_other_pixels() -> None:
    one, other = train(seed=0), train(seed=1)
    assert indices(one) != indices(other)
    assert not np.array_equal(one[0]["image"][:, 1:], other[0]["image"][:, 1:])


def test_neighbouring_seeds_do_not_share_epochs() -> None:
    # An order that depends on seed + epoch alone would repeat the next seed's.
    orders = [indices(train(seed=s, global_batch_size=LENGTH, stop_step=3)) for s in range(3)]
    epochs = [tuple(o[e * LENGTH : (e + 1) * LENGTH]) for o in orders for e in range(3)]
    assert len(set(epochs)) == len(epochs)


def test_every_epoch_is_a_new_permutation_and_its_seam_drops_nothing() -> None:
    order = indices(train(stop_step=LENGTH))  # 8 epochs, whose seams lie inside batches
    epochs = [order[start : start + LENGTH] for start in range(0, len(order), LENGTH)]
    assert len(epochs) == 8
    assert all(sorted(epoch) == list(range(LENGTH)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == len(epochs)


def test_an_example_gets_new_random_numbers_in_every_epoch() -> None:
    batches = train(global_batch_size=LENGTH, stop_step=4)
    seen = {batch["image"][batch["index"] == 5].tobytes() for batch in batches}
    assert len(seen) == 4


def test_random_numbers_differ_between_the_examples_of_a_batch() -> None:
    (batch,) = train(global_batch_size=LENGTH, stop_step=1)
    assert len({image.tobytes() for image in batch["image"][:, 1:]}) == LENGTH


def test_a_batch_may_be_larger_than_the_set() -> None:
    (batch,) = train(source=NumberedSource(3), global_batch_size=7, stop_step=1)
    assert sorted(batch["index"][:3]) == sorted(batch["index"][3:6]) == [0, 1, 2]


def test_a_set_of_one_example_can_be_trained_on() -> None:
    assert indices(train(source=NumberedSource(1), global_batch_size=2, stop_step=2)) == [0] * 4


# Resume


@pytest.mark.parametrize("start_step", [1, 5, 9])
def test_starting_at_a_step_equals_the_uninterrupted_stream(start_step: int) -> None:
    assert_same_batches(train(start_step=start_step), train()[start_step:])


def test_starting_late_reads_nothing_of_what_came_before() -> None:
    source = NumberedSource()
    start = 10**9
    batches = train(source=source, start_step=start, stop_step=start + 2)
    assert sorted(source.reads) == sorted(indices(batches))


def test_a_finished_run_yields_nothing() -> None:
    assert train(start_step=10, stop_step=10) == []


# Several processes


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_together_hold_the_batches_of_one(num_processes: int) -> None:
    shares = np.split(np.arange(8), num_processes)
    per_process = [train(rows=rows) for rows in shares]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*per_process, strict=True)
    ]
    assert_same_batches(joined, train())


def test_rows_come_in_the_order_asked_for() -> None:
    whole = train()
    for batch, of_whole in zip(train(rows=[6, 1]), whole, strict=True):
        np.testing.assert_array_equal(batch["image"], of_whole["image"][[6, 1]])


def test_a_process_reads_only_its_own_rows() -> None:
    source = NumberedSource()
    batches = train(source=source, rows=[2, 3])
    assert sorted(source.reads) == sorted(indices(batches))


# Evaluation


@pytest.mark.parametrize(("length", "size"), [(23, 8), (24, 8), (1, 1), (1, 5), (5, 64), (7, 1)])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_evaluation_counts_every_example_once(length: int, size: int, num_processes: int) -> None:
    shares = np.array_split(np.arange(size), num_processes)
    shares = [rows for rows in shares if len(rows)]
    per_process = [evaluate(length=length, global_batch_size=size, rows=rows) for rows in shares]
    assert {len(batches) for batches in per_process} == {-(-length // size)}
    counted = [
        index
        for batch in itertools.chain(*per_process)
        for index in batch["index"][batch["mask"]].tolist()
    ]
    assert sorted(counted) == list(range(length))


def test_evaluation_goes_through_the_set_in_order() -> None:
    assert indices(evaluate(global_batch_size=8))[:LENGTH] == list(range(LENGTH))


def test_padding_is_masked_and_full_sized() -> None:
    last = evaluate(global_batch_size=8)[-1]
    assert last["image"].shape == (8, SIZE, SIZE, 1)
    assert last["mask"].tolist() == [True] * 7 + [False]
    assert last["index"][-1] == -1


# Broken images


def test_broken_images_are_masked_in_their_place() -> None:
    whole, with_broken = train(), train(broken=[3, 4])
    for one, other in zip(with_broken, whole, strict=True):
        is_broken = np.isin(other["index"], [3, 4])
        np.testing.assert_array_equal(one["index"], other["index"])
        np.testing.assert_array_equal(one["mask"], ~is_broken)
        np.testing.assert_array_equal(one["image"][~is_broken], other["image"][~is_broken])


def test_broken_images_are_masked_in_evaluation() -> None:
    batches = evaluate(broken=[3], global_batch_size=8)
    assert [i for b in batches for i in b["index"][~b["mask"]].tolist()] == [3, -1]


def broken_images(
    transform: Callable[..., np.ndarray], *, is_training: bool = False
) -> tuple[BrokenImages, list[str]]:
    reports: list[str] = []
    read = LabelledImages(transform)
    broken = BrokenImages(NumberedSource(), read, report=reports.append, is_training=is_training)
    return broken, reports


def test_every_broken_image_is_reported_once_with_path_and_reason() -> None:
    broken, reports = broken_images(AddNoise([3, 4]), is_training=True)
    for batch in train(broken=[3, 4], stop_step=12):  # four epochs
        broken.note(batch)
    assert sorted(reports) == [
        "Broken image left out: numbered/3.jpg (number 3 is cut short)",
        "Broken image left out: numbered/4.jpg (number 4 is cut short)",
    ]
    assert len(broken) == 2


def test_padding_is_not_reported_as_broken() -> None:
    broken, reports = broken_images(KeepOrBreak())
    for batch in evaluate(global_batch_size=8):
        broken.note(batch)
    assert len(broken) == 0
    assert not reports


def test_the_listing_names_paths_and_reasons_up_to_its_limit() -> None:
    broken, _ = broken_images(KeepOrBreak([0, 1, 2]))
    for batch in evaluate(broken=[0, 1, 2], global_batch_size=8):
        broken.note(batch)
    assert broken.listing(limit=2).splitlines() == [
        "  numbered/0.jpg (number 0 is cut short)",
        "  numbered/1.jpg (number 1 is cut short)",
        "  ... and 1 more",
    ]


def test_an_image_that_decodes_at_a_second_attempt_says_so() -> None:
    broken, reports = broken_images(KeepOrBreak())
    broken.note(evaluate(broken=[3], global_batch_size=8)[0])
    assert reports == ["Broken image left out: numbered/3.jpg (decoded at a second attempt)"]


class Boxes:
    """Reads as many boxes as the example's number modulo 3, padded to two, and a score."""

    fields = {
        "boxes": Field((2, 4), np.float32, fill=-1),
        "score": Field((), np.float16),
    }

    def __call__(self, example: Record, *rng: np.random.Generator) -> dict[str, Any]:
        number = int(example.image[0, 0, 0])
        if number == 5:
            raise BrokenImage("number 5 is cut short")
        boxes = np.full((2, 4), -1.0)
        boxes[: number % 3] = number
        return {"boxes": boxes, "score": number / 2}


def test_examples_may_have_any_fields_and_masked_rows_hold_their_fills() -> None:
    batches = list(eval_batches(NumberedSource(), Boxes(), global_batch_size=8))
    shapes = {name: (array.shape, array.dtype) for name, array in batches[0].items()}
    assert shapes == {
        "boxes": ((8, 2, 4), np.float32),
        "score": ((8,), np.float16),
        "mask": ((8,), np.bool_),
        "index": ((8,), np.int64),
    }
    np.testing.assert_array_equal(batches[0]["score"], [0, 0.5, 1, 1.5, 2, 0, 3, 3.5])
    np.testing.assert_array_equal(batches[0]["boxes"][4], [[4] * 4, [-1] * 4])
    for batch in batches:
        assert (batch["boxes"][~batch["mask"]] == -1).all()
    assert [int((~batch["mask"]).sum()) for batch in batches] == [1, 0, 1]


# Errors


class Failing(KeepOrBreak):
    """Fails with an exception that cannot be pickled."""

    def __call__(self, image: np.ndarray, *rng: np.random.Generator) -> np.ndarray:
        error = ZeroDivisionError("no such luck")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error


def test_another_exception_names_the_example_and_shows_where_it_arose() -> None:
    batches = eval_batches(NumberedSource(), LabelledImages(Failing()), global_batch_size=8)
    with pytest.raises(
        ExampleError, match=r"numbered/0\.jpg: ZeroDivisionError: no such luck"
    ) as e:
        next(batches)
    assert "raise error\nZeroDivisionError: no such luck" in "".join(e.value.__notes__)


def test_a_source_that_cannot_be_read_names_the_example(tmp_path: Path) -> None:
    class Vanished(NumberedSource):
        def __getitem__(self, index: int) -> Record:
            raise FileNotFoundError(tmp_path)

    with pytest.raises(ExampleError, match=r"numbered/0\.jpg: FileNotFoundError"):
        next(eval_batches(Vanished(), LabelledImages(KeepOrBreak()), global_batch_size=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_batch_size": 0}, "global_batch_size is 0"),
        ({"rows": []}, "at least one"),
        ({"rows": [0, 8]}, r"in \[0, 8\)"),
        ({"start_step": -1}, "start_step is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_read(
    arguments: dict[str, Any], message: str
) -> None:
    source = NumberedSource()
    call = {"global_batch_size": 8, "seed": 0} | arguments
    with pytest.raises(ValueError, match=message):
        train_batches(source, LabelledImages(AddNoise()), **call)
    assert not source.reads


def test_default_workers_leave_two_cores_and_stay_within_bounds() -> None:
    assert [default_num_workers(count) for count in (1, 2, 3, 8, 500)] == [0, 0, 1, 6, 64]
