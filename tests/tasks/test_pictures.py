"""Pictures of predictions: colours, tags, boxes, masks, legends and sheets."""

import itertools

import numpy as np
import pytest

from lska_jax.data.coco_masks import encode_masks
from lska_jax.data.digit_scenes import DigitScenes
from lska_jax.tasks.detections import FoundObjects
from lska_jax.tasks.pictures.colours import class_colours, text_colour
from lska_jax.tasks.pictures.detections import detection_sheet, draw_found
from lska_jax.tasks.pictures.label_maps import draw_label_map
from lska_jax.tasks.pictures.objects import draw_objects
from lska_jax.tasks.pictures.sheet import draw_sheet
from lska_jax.tasks.pictures.text import Area, font, place_tag, shorten, text_size

GREY = np.full((100, 200, 3), 128, np.uint8)
NAMES = ("left", "right")


def found_in(position: int, *, score: float = 0.9) -> FoundObjects:
    example = DigitScenes("test", size=(64, 64))[position]
    scores = np.full(len(example.labels), score, np.float32)
    return FoundObjects(example.boxes, scores, example.labels, encode_masks(example.masks))


# --- colours


def test_colours_do_not_depend_on_how_many_classes_there_are():
    assert class_colours(20)[:7] == class_colours(7)
    assert class_colours(0) == () and len(class_colours(300)) == 300


def test_every_colour_of_256_is_another():
    assert len(set(class_colours(256))) == 256


def test_the_first_dozen_are_far_apart():
    apart = [
        np.abs(np.subtract(one, other)).sum()
        for one, other in itertools.combinations(class_colours(12), 2)
    ]
    assert min(apart) > 80


def test_text_is_dark_on_light_and_light_on_dark():
    assert text_colour((240, 228, 66)) == (0, 0, 0)
    assert text_colour((0, 0, 255)) == (255, 255, 255)


# --- objects


def test_boxes_and_masks_are_drawn_where_they_are():
    mask = np.zeros((1, 100, 200), bool)
    mask[0, 40:80, 20:60] = True
    boxes = np.array([[20, 40, 60, 80]], np.float32)
    picture = np.asarray(
        draw_objects(GREY, boxes, labels=[1], class_names=NAMES, masks=mask, least_side=1)
    )
    colour = np.array(class_colours(2)[1])
    assert picture.shape == (100, 200, 3)
    for row, column in ((40, 30), (79, 30), (60, 20), (60, 59)):
        np.testing.assert_array_equal(picture[row, column], colour)
    # The tint within, and nothing at a distance.
    assert np.abs(picture[60, 40] - (128 * 0.55 + colour * 0.45)).max() < 1.01
    assert (picture[60, 80:] == 128).all()


def test_objects_have_the_colours_that_a_model_states():
    boxes = np.array([[20, 40, 60, 80]], np.float32)
    stated = [(1, 2, 3), (200, 100, 50)]
    picture = draw_objects(GREY, boxes, labels=[1], class_names=NAMES, colours=stated, least_side=1)
    assert picture.getpixel((40, 40)) == stated[1]


def test_small_images_are_enlarged_by_a_whole_number():
    boxes = np.zeros((0, 4), np.float32)
    picture = draw_objects(GREY, boxes, labels=[], class_names=NAMES, least_side=512)
    assert picture.size == (600, 300)


def test_a_tag_keeps_out_of_the_way_of_others():
    box, canvas = Area(50, 50, 150, 120), (400, 300)
    taken: list[Area] = []
    for _ in range(5):
        tag = place_tag("a digit 100%", box, size=14, canvas=canvas, taken=taken)
        assert all(tag.common(other) == 0 for other in taken)
        assert tag.left >= 0 and tag.top >= 0
        assert tag.right <= canvas[0] and tag.bottom <= canvas[1]
        taken.append(tag)


def test_tags_of_boxes_at_an_edge_stay_in_the_picture():
    tag = place_tag("a long name", Area(190, 0, 200, 5), size=14, canvas=(200, 100), taken=[])
    assert tag.right <= 200 and tag.top >= 0


def test_letters_beyond_ascii_are_drawn():
    unknown, *masks = [bytes(font(20).getmask(letter)) for letter in "\ufffföżßд"]
    assert unknown not in masks and len(set(masks)) == 4


def test_long_names_are_cut_with_dots():
    assert shorten("cat", 14, width=100) == "cat"
    short = shorten("a very long name of a class", 14, width=100)
    assert short.endswith("...") and text_size(short, 14)[0] <= 100


# --- what was found


def test_detections_below_the_least_score_are_not_drawn():
    example = DigitScenes("test", size=(64, 64))[3]
    names = DigitScenes.class_names
    drawn = np.asarray(draw_found(example.image, found_in(3), class_names=names))
    empty = np.asarray(draw_found(example.image, found_in(3, score=0.1), class_names=names))
    nothing = draw_objects(example.image, example.boxes[:0], labels=[], class_names=names)
    assert (drawn != empty).any()
    np.testing.assert_array_equal(empty, nothing)


def test_a_sheet_shows_images_from_all_over_a_split():
    source = DigitScenes("test", size=(64, 64))
    sheet = detection_sheet({n: found_in(n) for n in (0, 3, 200)}, source, most=2)
    assert sheet.width > 4 * 384 and 384 < sheet.height < 600


def test_rows_of_a_sheet_with_pictures_of_any_height_do_not_overlap():
    tall, wide = (draw_objects(image, np.zeros((0, 4), np.float32), labels=[], class_names=NAMES)
                  for image in (GREY.transpose(1, 0, 2), GREY))  # fmt: skip
    rows = [("a", [tall, wide]), ("b", [wide, wide]), ("c", [wide, tall])]
    sheet = draw_sheet(rows, titles=["one", "two"], rows_across=2, width=100)
    # Two rows, each as high as the tall picture of 100 x 200.
    assert 400 < sheet.height < 520


# --- label maps


def test_pixels_have_the_colours_of_their_classes_and_unlabelled_ones_none():
    label_map = np.zeros((100, 200), np.uint8)
    label_map[:, 100:] = 1
    label_map[50:] = 255
    picture = np.asarray(
        draw_label_map(GREY, label_map, class_names=NAMES, use_legend=False, least_side=1)
    ).astype(int)
    for column, label in ((10, 0), (150, 1)):
        colour = np.array(class_colours(2)[label])
        assert np.abs(picture[10, column] - (128 * 0.35 + colour * 0.65)).max() < 1.01
    assert set(picture[80, 10]) == {int(128 * 0.4)}


def test_what_is_called_background_stays_grey():
    label_map = np.zeros((100, 200), np.uint8)
    label_map[:, 100:] = 1
    picture = np.asarray(
        draw_label_map(GREY, label_map, class_names=("Background", "cat"), use_legend=False)
    )
    assert (picture[:, :290] == 128).all()
    assert (picture[:, 310:] != 128).any(-1).all()


@pytest.mark.parametrize("count", [1, 2, 60])
def test_a_legend_lists_what_occurs_and_fits(count):
    label_map = np.arange(100 * 200).reshape(100, 200) % count
    names = [f"class {number}" for number in range(count)]
    plain = draw_label_map(GREY, label_map, class_names=names, use_legend=False)
    picture = np.asarray(draw_label_map(GREY, label_map, class_names=names))
    legend = picture[:, plain.width :]
    assert picture.shape[0] == plain.height and (legend == 255).mean() > 0.5
    first = np.array(class_colours(count)[0])
    assert (legend == first).all(-1).any()
    assert not (legend[-3:] != 255).any()
