"""Scores over cells: exact where all are there, absent with their reason otherwise."""

import numpy as np
import pytest

from lska_jax.robustness.cells import (
    Cell,
    CellResult,
    Hole,
    ModelStamp,
    Score,
    StampedScore,
    Summary,
)
from lska_jax.robustness.scores.reference_errors import ALEXNET_ERRORS, ALL_CORRUPTIONS, CORRUPTIONS
from lska_jax.robustness.sets.catalogue import set_cells
from lska_jax.robustness.sweep.results_file import Results
from lska_jax.robustness.sweep.summary import summarise

STAMP = ModelStamp(name="m", sha256="0" * 64, preprocessing="crop 224")
IMAGES = 20
IMAGE_SET, OTHER_SET = np.arange(8, dtype=np.uint8), np.ones(8, np.uint8)
C_CELLS = set_cells("imagenet_c")


def result(cell: Cell, right: int, **changes) -> CellResult:
    """Return a result with the first ``right`` of 20 images right."""
    top1 = np.arange(IMAGES) < right
    values = {
        "model": "m",
        "cell": cell,
        "provenance": "official",
        "origin": "folder",
        "preprocessing": "crop 224",
        "num_images": IMAGES,
        "scores": {"error": Score(1 - right / IMAGES), "top1": Score(right / IMAGES)},
        "outcomes": {"top1": top1, "images": IMAGE_SET},
    }
    return CellResult(**{**values, **changes})


def summary(results, plan=None):
    cells = {(r.model, r.cell): r for r in results}
    plan = [r.cell for r in results] if plan is None else list(plan)
    (only,) = summarise(Results({}, plan=plan, models={"m": STAMP}, cells=cells), where="results")
    return only


def value(of, key):
    return of.scores[key].score.value


def test_a_complete_imagenet_c_has_both_mces_and_each_ce():
    clean = Cell("imagenet")
    found = summary([result(clean, 16), *(result(cell, 5) for cell in C_CELLS)])
    # An error of 0.75 everywhere: CE is 0.75 / AlexNet's mean error.
    ce = {name: 0.75 / np.mean(ALEXNET_ERRORS[name]) for name in ALL_CORRUPTIONS}
    for name in ALL_CORRUPTIONS:
        assert value(found, f"imagenet_c/ce/{name}") == pytest.approx(ce[name])
        assert value(found, f"imagenet_c/error/{name}/3") == 0.75
    assert value(found, "imagenet_c/mce_15") == pytest.approx(np.mean([ce[n] for n in CORRUPTIONS]))
    assert value(found, "imagenet_c/mce_19") == pytest.approx(np.mean([*ce.values()]))
    assert value(found, "imagenet_c/mean_error_19") == pytest.approx(0.75)
    # 5 of 20 right under corruption, 16 of 20 without.
    assert value(found, "imagenet_c/retention_15") == pytest.approx(5 / 16)
    assert found.holes == ()


def test_the_same_images_are_right_in_every_cell_so_the_interval_is_that_of_one_cell():
    found = summary([result(cell, 5) for cell in C_CELLS])
    mean = found.scores["imagenet_c/mean_error_19"].score
    # 95 % of binomial(20, 0.75) / 20; independent cells would give a tenth of its width.
    assert (mean.low, mean.high) == (pytest.approx(0.55, abs=0.051), pytest.approx(0.95, abs=0.051))


def test_a_corruption_has_a_mean_error_where_its_five_severities_are_there():
    cells = [Cell("clean_c", part, level) for part in ("fog", "snow") for level in range(1, 6)]
    # 2, 4, 6, 8 and 10 of 20 right: errors 0.9 to 0.5.
    results = [result(cell, 2 * cell.severity) for cell in cells if cell != cells[-1]]
    found = summary(results, plan=cells)
    assert value(found, "clean_c/error/fog") == pytest.approx(0.7)
    score = found.scores["clean_c/error/fog"].score
    assert 0 <= score.low < 0.7 < score.high <= 1
    assert "clean_c/error/snow" not in found.scores


def test_one_missing_cell_takes_every_mean_over_it_away():
    missing = Cell("imagenet_c", "fog", 4)
    results = [result(cell, 5) for cell in C_CELLS if cell != missing]
    found = summary(results, plan=C_CELLS)
    assert not any("mce" in key or "mean_error" in key for key in found.scores)
    assert "imagenet_c/ce/fog" not in found.scores
    assert "imagenet_c/ce/snow" in found.scores
    assert [hole.cell for hole in found.holes] == [missing]
    assert "not measured yet" in found.holes[0].reason


def test_a_missing_extra_corruption_leaves_the_mce_over_15():
    missing = Cell("imagenet_c", "spatter", 1)
    found = summary([result(cell, 5) for cell in C_CELLS if cell != missing], plan=C_CELLS)
    assert "imagenet_c/mce_15" in found.scores and "imagenet_c/mce_19" not in found.scores


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"provenance": "tfds"}, "provenance"),
        ({"preprocessing": "short side 248"}, "preprocessing"),
    ],
)
def test_cells_of_different_kinds_are_never_mixed_in_one_score(change, word):
    results = [result(cell, 5, **(change if cell.part == "fog" else {})) for cell in C_CELLS]
    found = summary(results)
    assert not any("mce" in key or "mean_error" in key for key in found.scores)
    assert found.scores["imagenet_c/error/fog/1"].score.value == 0.75
    (hole,) = found.holes
    assert hole.cell == Cell("imagenet_c") and f"differ in {word}" in hole.reason


def test_other_classes_than_imagenets_are_not_divided_by_alexnets_errors():
    cells = [Cell("clean_c", cell.part, cell.severity) for cell in C_CELLS]
    found = summary([result(Cell("clean"), 10), *(result(cell, 5) for cell in cells)])
    whole = {key for key in found.scores if key.startswith("clean_c/") and key.count("/") == 1}
    assert whole == {
        *("clean_c/mean_error", "clean_c/mean_error_19"),
        *("clean_c/retention_15", "clean_c/retention_19"),
    }
    assert not any("/ce/" in key for key in found.scores)
    assert value(found, "clean_c/retention_19") == 0.5


def test_c_bar_is_a_plain_mean_error():
    cells = set_cells("imagenet_c_bar")
    results = [result(cell, 5 if number % 2 else 15) for number, cell in enumerate(cells)]
    assert value(summary(results), "imagenet_c_bar/mean_error") == pytest.approx(0.5)


def test_imagenet_o_is_told_from_clean_images():
    def confident(cell, values):
        outcomes = {"confidence_imagenet_o": np.array(values, np.float32), "images": IMAGE_SET}
        return result(cell, 10, scores={}, outcomes=outcomes)

    out = confident(Cell("imagenet_o"), [0.1, 0.8])
    known = confident(Cell("imagenet"), [0.2, 0.9])
    # In order of anomaly: O (precision 1), known, O (precision 2/3), known.
    found = summary([known, out])
    assert value(found, "imagenet_o/aupr_out") == pytest.approx((1 + 2 / 3) / 2)
    alone = summary([out])
    assert alone.scores == {} and "add imagenet to --suite" in alone.holes[0].reason


def test_the_controls_stand_beside_their_subset():
    clean = result(Cell("imagenet"), 5, scores={"clean_top1_200/imagenet_a": Score(0.5)})
    assert value(summary([clean]), "imagenet_a/clean_top1_200") == 0.5


def test_a_perturbations_mean_is_over_the_ten():
    def of(cell, flips):
        values = np.array([flips, flips / 2], np.float32)
        return result(
            cell,
            5,
            scores={"flip_probability": Score(float(values.mean())), "top5_distance": Score(1.0)},
            outcomes={
                "flip_probability": values,
                "top5_distance": np.ones(2, np.float32),
                "images": IMAGE_SET,
            },
        )

    cells = set_cells("imagenet_p")
    found = summary([of(cell, 0.4) for cell in cells])
    assert value(found, "imagenet_p/flip_probability") == pytest.approx(0.3)
    assert value(found, "imagenet_p/flip_probability/tilt") == pytest.approx(0.3)
    assert "imagenet_p/flip_probability" not in summary([of(c, 0.4) for c in cells[1:]]).scores


def test_unreadable_images_are_told_and_their_cells_are_not_drawn_together():
    top1 = np.arange(IMAGES - 1) < 5
    broken = result(
        C_CELLS[0],
        5,
        num_broken=1,
        num_images=IMAGES - 1,
        outcomes={"top1": top1, "images": OTHER_SET},
    )
    found = summary([broken, *(result(cell, 5) for cell in C_CELLS[1:])])
    mce = found.scores["imagenet_c/mce_15"]
    assert mce.note == "unreadable images: 1"
    assert mce.score.value is not None and mce.score.low is None
    assert found.scores["imagenet_c/ce/snow"].note == ""


def test_a_broken_clean_image_is_counted_once_for_all_that_is_generated_from_it():
    made = {"provenance": "generated", "num_broken": 1}
    found = summary([result(cell, 5, **made) for cell in C_CELLS])
    assert found.scores["imagenet_c/mce_15"].note == "unreadable images: 1"


def test_cells_of_other_sizes_have_no_mean():
    short = result(C_CELLS[0], 5, num_images=IMAGES - 2)
    found = summary([short, *(result(cell, 5) for cell in C_CELLS[1:])])
    assert not any("mce" in key or "mean_error" in key for key in found.scores)
    assert f"{C_CELLS[0]} has 18 images, others up to 20" in found.holes[0].reason


def test_clean_images_that_are_others_give_no_interval_to_what_is_divided_by_them():
    other = {"top1": np.arange(IMAGES) < 16, "images": OTHER_SET}
    clean = result(Cell("imagenet"), 16, outcomes=other, preprocessing="short side 248")
    found = summary([clean, *(result(cell, 5) for cell in C_CELLS)])
    retention = found.scores["imagenet_c/retention_15"]
    assert retention.score.value == pytest.approx(5 / 16) and retention.score.low is None
    assert "clean control: official, short side 248" in retention.note
    assert found.scores["imagenet_c/mce_15"].score.low is not None


def test_a_printed_summary_is_a_table_with_a_line_for_each_score():
    stamp = ModelStamp(name="small", sha256="0" * 64, preprocessing="crop 32")
    scores = {
        "imagenet/top1": StampedScore(
            score=Score(0.5, 0.25, 0.75), provenance="own", preprocessing="", num_images=1200
        ),
        "imagenet/nll": StampedScore(
            score=Score(None), provenance="own", preprocessing="", num_images=3
        ),
    }
    cell = Cell("imagenet_v2", "top_images")
    printed = str(Summary(model=stamp, scores=scores, holes=(Hole(cell, "not there"),)))
    assert printed.splitlines() == [
        "small: crop 32",
        "score          value   95 % interval     images  provenance",
        "imagenet/top1  0.5000  0.2500 to 0.7500  1,200   own",
        "imagenet/nll                             3       own",
        "1 cells are missing.",
    ]
