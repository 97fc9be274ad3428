"""Corruption error and its relatives on tables whose scores are worked out by hand."""

import inspect

import pytest

from lska_jax.robustness.scores import corruption_error as ce
from lska_jax.robustness.scores.corruption_error import MissingCells
from lska_jax.robustness.scores.reference_errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    ALL_CORRUPTIONS,
    C_BAR_CORRUPTIONS,
    CORRUPTIONS,
    SEVERITIES,
)


def cells(error, corruptions=ALL_CORRUPTIONS):
    """Return a mapping of cells; ``error`` is a function of corruption and severity."""
    return {(name, s): error(name, s) for name in corruptions for s in SEVERITIES}


def tenths(corruptions=ALL_CORRUPTIONS):
    """Return errors 0.1 to 0.5 by severity, whose mean is 0.3."""
    return cells(lambda name, s: s / 10, corruptions)


def test_ce_is_the_sum_of_errors_over_alexnets():
    errors = {("gaussian_noise", s): (s + 4) / 10 for s in SEVERITIES}
    # 0.5 + 0.6 + 0.7 + 0.8 + 0.9 = 3.5 against 5 x 0.886 = 4.43.
    assert ce.corruption_error(errors, "gaussian_noise") == pytest.approx(3.5 / 4.43)


def test_alexnet_has_an_mce_of_one():
    errors = cells(lambda name, s: ALEXNET_ERRORS[name])
    assert ce.mean_corruption_error(errors) == pytest.approx(1)
    assert ce.mean_corruption_error(errors, count=19) == pytest.approx(1)
    assert ce.relative_mean_corruption_error(errors, ALEXNET_CLEAN_ERROR) == pytest.approx(1)


def test_mce_weighs_corruptions_not_cells_of_different_difficulty():
    errors = cells(lambda name, s: 0.0 if name == "brightness" else ALEXNET_ERRORS[name] / 2)
    # CE is 1/2 for all but brightness, where it is 0.
    assert ce.mean_corruption_error(errors) == pytest.approx(7 / 15)
    assert ce.mean_corruption_error(errors, count=19) == pytest.approx(9 / 19)


def test_the_extra_corruptions_count_in_mce_19_alone():
    errors = cells(lambda name, s: 0.0 if name in CORRUPTIONS else ALEXNET_ERRORS[name])
    assert ce.mean_corruption_error(errors) == 0
    assert ce.mean_corruption_error(errors, count=19) == pytest.approx(4 / 19)


def test_relative_mce_compares_increases():
    # 0.2 below AlexNet everywhere, also on clean images: the same increases, so each ratio is 1;
    # except contrast, which costs this model nothing.
    clean = ALEXNET_CLEAN_ERROR - 0.2
    errors = cells(lambda name, s: clean if name == "contrast" else ALEXNET_ERRORS[name] - 0.2)
    assert ce.relative_mean_corruption_error(errors, clean) == pytest.approx(14 / 15)
    assert ce.relative_mean_corruption_error(errors, clean, count=19) == pytest.approx(18 / 19)


def test_mean_error_is_the_mean_over_all_cells():
    errors = tenths()
    errors["fog", 5] = 1.0
    # 0.3 and, in one of 75 cells, 0.5 more.
    assert ce.mean_error(errors) == pytest.approx(0.3 + 0.5 / 75)
    assert ce.mean_error(errors, corruptions=("fog", "snow")) == pytest.approx(0.35)


def test_mean_error_of_c_bar_is_over_its_fifty_cells():
    errors = tenths(C_BAR_CORRUPTIONS)
    errors["sparkles", 1] = 0.6
    assert ce.c_bar_mean_error(errors) == pytest.approx(0.3 + 0.5 / 50)


def test_retention_is_the_share_of_clean_accuracy_that_survives():
    # 0.7 right under corruption of 0.8 right without; then 0.5 less in one cell of 75 or of 95.
    errors = tenths()
    assert ce.retention(errors, 0.2) == pytest.approx(0.875)
    errors["fog", 5] = 1.0
    assert ce.retention(errors, 0.2) == pytest.approx((0.7 - 0.5 / 75) / 0.8)
    assert ce.retention(errors, 0.2, count=19) == pytest.approx((0.7 - 0.5 / 95) / 0.8)


def test_a_model_that_is_always_wrong_has_no_retention():
    assert ce.retention(cells(lambda name, s: 1.0), 1.0) is None


def test_a_perfect_model_scores_zero():
    errors = cells(lambda name, s: 0.0)
    assert ce.mean_corruption_error(errors) == 0
    assert ce.mean_error(errors) == 0
    assert ce.relative_mean_corruption_error(errors, 0.0) == 0
    assert ce.retention(errors, 0.0) == 1


def test_one_missing_cell_leaves_no_mean_and_is_named():
    errors = tenths()
    del errors["fog", 3]
    hole = ce.mean_corruption_error(errors)
    assert hole == MissingCells("mCE (15)", (("fog", 3),))
    assert str(hole) == "no mCE (15): 1 missing (fog/3)"
    for score in (
        ce.relative_mean_corruption_error(errors, 0.1),
        ce.retention(errors, 0.1),
        ce.mean_error(errors),
        ce.corruption_error(errors, "fog"),
    ):
        assert isinstance(score, MissingCells)
        assert score.missing == (("fog", 3),)
    assert ce.corruption_error(errors, "snow") == pytest.approx(0.3 / 0.867)


def test_mce_15_needs_no_extra_corruptions_and_mce_19_all_of_them():
    errors = tenths(CORRUPTIONS)
    assert isinstance(ce.mean_corruption_error(errors), float)
    hole = ce.mean_corruption_error(errors, count=19)
    assert isinstance(hole, MissingCells)
    assert len(hole.missing) == 20


def test_a_hole_is_no_number():
    hole = ce.c_bar_mean_error({})
    with pytest.raises(TypeError):
        float(hole)


def test_all_scores_come_by_name():
    scores = ce.corruption_scores(tenths(CORRUPTIONS), clean_error=0.2)
    assert scores["mean_error"] == pytest.approx(0.3)
    assert scores["retention_15"] == pytest.approx(0.875)
    assert scores["ce/frost"] == pytest.approx(0.3 / 0.827)
    assert isinstance(scores["mce_15"], float)
    holes = {name for name, score in scores.items() if isinstance(score, MissingCells)}
    extra = {"ce/speckle_noise", "ce/gaussian_blur", "ce/spatter", "ce/saturate"}
    assert holes == extra | {"mce_19", "mean_error_19", "relative_mce_19", "retention_19"}
    assert "retention_15" not in ce.corruption_scores(tenths())


@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        (("fog", 1), 30.0, "fog/1 is 30.0: an error is a fraction.*Divide percent by 100"),
        (("fog", 1), float("nan"), "fog/1 is nan"),
        (("fog", 1), -0.1, "fog/1 is -0.1"),
        (("fog", 6), 0.1, "fog has no severity 6: severities are 1 to 5"),
        (("sparkles", 1), 0.1, "no corruption 'sparkles'.*cells of one set"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(cell, error, message):
    with pytest.raises(ValueError, match=message):
        ce.mean_corruption_error(tenths() | {cell: error})


def test_a_clean_error_in_percent_is_refused():
    with pytest.raises(ValueError, match="clean error is 20.0"):
        ce.retention(tenths(), 20.0)
    with pytest.raises(ValueError, match="clean error is 20.0"):
        ce.relative_mean_corruption_error(tenths(), 20.0)


def test_no_other_mean_is_called_mce():
    with pytest.raises(ValueError, match="over 16 corruptions is not defined.*mean_error"):
        inspect.unwrap(ce.corruption_set)(16)
    with pytest.raises(ValueError, match="No corruptions"):
        ce.mean_error(tenths(), corruptions=())
