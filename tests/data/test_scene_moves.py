"""Moving scenes: sizes and pixels as in OpenCV and the reference, and all parts move together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lska_jax.data.plain_resize import fit_size, resize_bilinear, resize_nearest
from lska_jax.data.scene_moves import (
    Move,
    draw_mixed_window,
    draw_move,
    fit_move,
    has_area,
    pad_image,
    pad_map,
)
from lska_jax.data.scenes import IGNORED_LABEL

GOLDEN = Path(__file__).parents[1] / "golden" / "dense"
IMAGE = (np.arange(8 * 9 * 3).reshape(8, 9, 3) ** 2 * 7 % 251).astype(np.uint8)
# What cv2.resize makes of it, size by size (versions 4.10 and 5.0 agree): the sum of all values,
# and the sum of each times its place.
OPENCV_SUMS = {(5, 7): (12651, 686807), (11, 5): (19971, 1723505), (16, 18): (105545, 47580991)}


def rectangle(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = box
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def random_moves() -> list[Move]:
    rng = np.random.default_rng(5)
    return [
        draw_move((40, 60), rng, bounds=(180, 120), canvas=(90, 100), jitter=(0.7, 1.4))
        for _ in range(20)
    ]


# --- resizing


def test_sizes_are_those_of_both_references():
    rows = np.load(GOLDEN / "ops_sizes.npz")["rows"].tolist()
    for height, width, *expected in rows:
        detection = fit_size(height, width, long_side=1333, short_side=800)
        padded = [-(-side // 32) * 32 for side in detection]
        segmentation = fit_size(height, width, long_side=2048, short_side=512)
        assert [*detection, *padded, *segmentation] == expected


@pytest.mark.parametrize("size", OPENCV_SUMS)
def test_bilinear_pixels_are_those_of_opencv(size):
    resized = resize_bilinear(IMAGE, size).astype(int).ravel()
    assert (resized.sum(), (resized * np.arange(resized.size)).sum()) == OPENCV_SUMS[size]


def test_a_window_is_a_part_of_the_whole_resized_image():
    window = slice(3, 10), slice(2, 17)
    np.testing.assert_array_equal(
        resize_bilinear(IMAGE, (16, 18), rows=window[0], columns=window[1]),
        resize_bilinear(IMAGE, (16, 18))[window],
    )
    np.testing.assert_array_equal(
        resize_nearest(IMAGE[..., 0], (16, 18), rows=window[0], columns=window[1]),
        resize_nearest(IMAGE[..., 0], (16, 18))[window],
    )


def test_masks_are_resized_as_in_the_reference():
    golden = np.load(GOLDEN / "ops_masks.npz")
    height, width = golden["image_shape"].tolist()
    masks = np.unpackbits(golden["bitmap_bits"], axis=-1, count=width).astype(bool)
    short_side, long_side = sorted(golden["rescaled/scale"].tolist())
    size = fit_size(height, width, long_side=long_side, short_side=short_side)
    expected = np.unpackbits(golden["rescaled/bits"], axis=-1, count=size[1]).astype(bool)
    np.testing.assert_array_equal(resize_nearest(masks, size), expected)


# --- moving


@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_mask_drawn_before_is_the_moved_box_drawn_after(is_flipped):
    box = (7, 3, 20, 30)
    move = Move(
        source=(40, 60), resized=(120, 180), top=30, left=11, size=(80, 100), is_flipped=is_flipped
    )
    (moved,) = move.boxes(np.float32([box]))
    drawn_after = rectangle(tuple(moved.astype(int)), (80, 100))
    np.testing.assert_array_equal(move.maps(rectangle(box, (40, 60))), drawn_after)


def test_a_flipped_box_is_measured_from_the_edge_of_the_image_and_not_of_its_padding():
    move = Move(source=(4, 10), resized=(4, 10), size=(4, 10), is_flipped=True)
    mask = rectangle((1, 0, 3, 2), (4, 10))
    (box,) = move.boxes(np.float32([[1, 0, 3, 2]]))
    assert box.tolist() == [7, 0, 9, 2]
    padded = pad_map(move.maps(mask), (4, 16))
    np.testing.assert_array_equal(padded, rectangle((7, 0, 9, 2), (4, 16)))


@pytest.mark.parametrize("move", random_moves())
def test_image_masks_and_boxes_stay_together(move):
    # A bright square on black: in the image, in its mask and in its box.
    mask = rectangle((12, 10, 41, 33), (40, 60))
    (box,) = move.boxes(np.float32([[12, 10, 41, 33]]))
    image = move.image(np.repeat(np.uint8(255 * mask)[..., None], 3, 2))[..., 0]
    assert image.shape == move.size == move.maps(mask).shape
    # Interpolation reaches a pixel and a half of the source beyond an edge, nearest one.
    slack = 2 * max(move.resized[0] / 40, move.resized[1] / 60)
    rows, columns = np.mgrid[: move.size[0], : move.size[1]] + 0.5
    far_inside = (
        (columns > box[0] + slack)
        & (columns < box[2] - slack)
        & (rows > box[1] + slack)
        & (rows < box[3] - slack)
    )
    far_outside = (
        (columns < box[0] - slack)
        | (columns > box[2] + slack)
        | (rows < box[1] - slack)
        | (rows > box[3] + slack)
    )
    for found in (image / 255, move.maps(mask)):
        assert (found[far_inside] == 1).all() and (found[far_outside] == 0).all()


def test_flipping_twice_changes_nothing():
    move = random_moves()[0]
    straight = dataclasses.replace(move, is_flipped=False)
    flipped = dataclasses.replace(move, is_flipped=True)
    again = Move(source=move.size, resized=move.size, size=move.size, is_flipped=True)
    boxes = np.float32([[5, 6, 30, 20], [0, 0, 60, 40]])
    image = np.resize(IMAGE, (40, 60, 3))
    np.testing.assert_array_equal(again.image(flipped.image(image)), straight.image(image))
    np.testing.assert_allclose(again.boxes(flipped.boxes(boxes)), straight.boxes(boxes), atol=1e-4)


def test_boxes_outside_the_window_have_no_area():
    move = Move(source=(40, 60), resized=(40, 60), top=10, left=10, size=(20, 20))
    boxes = move.boxes(np.float32([[0, 0, 9, 9], [31, 12, 40, 20], [5, 5, 12, 12]]))
    assert has_area(boxes).tolist() == [False, False, True]
    assert boxes[2].tolist() == [0, 0, 2, 2]


def test_an_evaluation_keeps_the_whole_image():
    move = fit_move((480, 640), bounds=(1333, 800))
    assert move == Move(source=(480, 640), resized=(800, 1067), size=(800, 1067))


def test_a_move_fits_the_canvas_and_repeats_with_its_generator():
    assert random_moves() == random_moves()
    for move in random_moves():
        assert move.size[0] <= 90 and move.size[1] <= 100
        assert move.top + move.size[0] <= move.resized[0]
    assert {move.is_flipped for move in random_moves()} == {False, True}


def test_a_window_is_drawn_anew_until_no_class_fills_it():
    label_map = np.zeros((40, 40), np.uint8)
    label_map[:, 30:] = 1
    label_map[:5] = IGNORED_LABEL
    move = Move(source=(40, 40), resized=(40, 40), size=(12, 12))
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        window = draw_mixed_window(move, label_map, rng).maps(label_map)
        counts = np.bincount(window[window != IGNORED_LABEL], minlength=2)
        shares.append(counts.max() / counts.sum())
    # One window in five will do; of eleven hardly ever none.
    assert np.mean(np.array(shares) < 0.75) > 0.7


def test_padding_lies_below_and_on_the_right():
    np.testing.assert_array_equal(
        pad_map(np.ones((1, 2), np.uint8), (2, 3), fill=255), [[1, 1, 255], [255, 255, 255]]
    )
    assert pad_image(IMAGE, (9, 12))[8:].sum() == pad_image(IMAGE, (9, 12))[:, 9:].sum() == 0
