"""Pictures of the report: that they are there, show their data and say what has none."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from summaries import corruption_scores, full_summary, holed_summary, stamped, summary

from lska_jax.robustness.cells import Cell, Score
from lska_jax.robustness.report import corruption_pictures, drawing
from lska_jax.robustness.report.names import Key, clean_set
from lska_jax.robustness.report.shape_picture import shape_bias_by_class
from lska_jax.robustness.report.shift_picture import fit_trend, shift_scatter
from lska_jax.robustness.report.write import draw_pictures

HOSTILE = "_$x_1^{ \\frac{1} <b> " + "long " * 20


@pytest.fixture
def unpainted(monkeypatch):
    """Lay pictures out without painting them, where a test reads their words alone."""
    monkeypatch.setattr(drawing, "to_png", lambda figure: b"")


def pixels_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def share_of(png: bytes, colour: str) -> float:
    """Return the share of pixels that have a colour, give or take what blending changes."""
    wanted = np.asarray([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels_of(png).astype(int) - wanted).max(axis=-1) <= 8).mean())


@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_every_picture_has_a_sensible_size_and_is_not_blank(count):
    names = [HOSTILE, *map(str, range(1, count))]
    models = [full_summary(name, 0.6 + 0.02 * i) for i, name in enumerate(names)]
    pictures = draw_pictures(models)
    assert [picture.name for picture in pictures] == [
        "shift",
        "corruptions_imagenet_c_ce",
        "severities_imagenet_c",
        "shape_bias",
    ]
    for picture in pictures:
        pixels = pixels_of(picture.png)
        height, width, _ = pixels.shape
        assert 600 <= width <= 2400
        assert 400 <= height <= 2400
        # White paper with something on it, and the first model's colour in it.
        assert 0.3 < (pixels == 255).all(axis=-1).mean() < 0.99
        assert share_of(picture.png, "#0072B2") > 2e-4


def test_a_picture_is_the_same_each_time():
    models = [full_summary("a", 0.7)]
    assert shape_bias_by_class(models).png == shape_bias_by_class(models).png


def test_a_label_is_neither_a_formula_nor_hidden_nor_endless():
    label = drawing.label_of(HOSTILE)
    assert label.startswith(" _\\$x")
    assert len(label) < 50
    assert "…" in label


def test_seventy_models_can_be_told_apart():
    found = drawing.styles([str(i) for i in range(70)]).values()
    assert len({(style.colour, style.marker) for style in found}) == 70


def test_the_interval_of_a_bootstrap_need_not_hold_the_value():
    lengths = drawing.interval_lengths(
        [Score(0.5, 0.4, 0.7), Score(0.5), Score(0.5, 0.6, 0.7), Score(0.5, 0.3, 0.4)]
    )
    assert np.allclose(lengths, [[10, 0, 0, 20], [20, 0, 20, 0]])


def test_bars_say_what_has_no_data(unpainted):
    picture = corruption_pictures.bars([holed_summary("a")], "imagenet_c", "ce")
    assert "no data for 1 of the bars" in picture.caption
    whole = corruption_pictures.bars([full_summary("a", 0.7)], "imagenet_c", "ce")
    assert "no data" not in whole.caption


def test_bars_of_errors_speak_of_no_alexnet(unpainted):
    scores = corruption_scores("cifar10_c", 0.3, with_ce=False)
    picture = corruption_pictures.bars([summary("a", scores)], "cifar10_c", "error")
    assert picture.title == "CIFAR-10-C: error by corruption"
    assert "AlexNet" not in picture.caption


def test_pictures_say_whose_images_differ(unpainted):
    models = [
        summary(name, corruption_scores("imagenet_c", 0.5, provenance=provenance))
        for name, provenance in (("a", "official"), ("b", "generated"))
    ]
    models.append(summary("c", {}))
    keys = [Key("imagenet_c", "ce", "fog")]
    styles, sentence = drawing.with_sources(drawing.styles(["a", "b", "c"]), models, keys)
    labels = [style.label for style in styles.values()]
    assert labels == ["a (official)", "b (generated)", "c (no data)"]
    assert "cannot be compared" in sentence
    assert "cannot be compared" in corruption_pictures.bars(models, "imagenet_c", "ce").caption
    styles, sentence = drawing.with_sources(drawing.styles(["a"]), models[:1], keys)
    assert (styles["a"].label, sentence) == ("a", "Images: official. ")


def test_curves_say_what_has_no_data(unpainted):
    picture = corruption_pictures.severity_curves([holed_summary("a")], "imagenet_c")
    assert "no data for 5 of the points" in picture.caption


def test_curves_need_errors_of_single_severities():
    scores = {"imagenet_c/error/fog": 0.5}
    assert corruption_pictures.severity_curves([summary("a", scores)], "imagenet_c") is None


def test_one_corruption_alone_can_be_drawn():
    scores = {"imagenet_c/error/fog/1": 0.5, "imagenet_c/ce/fog": 0.7}
    models = [summary("a", scores), summary("b", {}, holes={Cell("imagenet_c", "fog", 1): "no"})]
    curves = corruption_pictures.severity_curves(models, "imagenet_c")
    assert "no data for 9 of the points" in curves.caption
    assert (
        "no data for 1 of the bars" in corruption_pictures.bars(models, "imagenet_c", "ce").caption
    )


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("imagenet_c_bar", "imagenet"),
        ("imagenet_c", "imagenet"),
        ("cifar10_c", "cifar10"),
        ("cifar10", "cifar10"),
        ("cifar100_c", None),
        ("cue_conflict", None),
    ],
)
def test_the_clean_set_of_a_set_is_found_by_its_name(name, clean):
    measured = [("imagenet", "top1"), ("cifar10", "top1"), ("imagenet_c", "mce_15")]
    assert clean_set(name, [Key(*words) for words in measured]) == clean


def test_the_trend_is_the_line_between_logits():
    # logit(shifted) = 1.5 logit(clean) - 1, exactly: what a fit must give back.
    def shifted(clean: float) -> float:
        return 1 / (1 + math.exp(1 - 1.5 * math.log(clean / (1 - clean))))

    trend = fit_trend([(x, shifted(x)) for x in (0.6, 0.7, 0.8, 0.85)])
    # Float64 arithmetic on four numbers.
    assert trend.slope == pytest.approx(1.5, rel=1e-12)
    assert trend.intercept == pytest.approx(-1, rel=1e-12)
    assert trend.predict(0.75) == pytest.approx(shifted(0.75), rel=1e-12)


@pytest.mark.parametrize(
    "points",
    [
        [(0.7, 0.5), (0.8, 0.6)],
        [(0.7, 0.5), (0.7, 0.6), (0.7, 0.4)],
        [(0.7, 0.5), (0.8, 0.6), (0.9, 0.0)],
        [(0.7, 0.5), (0.8, 0.6), (1.0, 0.9)],
    ],
    ids=["two models", "one clean accuracy", "an accuracy of 0", "an accuracy of 1"],
)
def test_there_is_no_trend_through_too_little(points):
    assert fit_trend(points) is None


def test_the_scatter_says_whether_there_is_a_trend(unpainted):
    models = [full_summary(str(i), 0.6 + 0.05 * i) for i in range(3)]
    assert "fitted between logits" in shift_scatter(models).caption
    assert "No trend is drawn" in shift_scatter(models[:2]).caption


def test_the_scatter_leaves_out_models_on_other_data_and_says_so(unpainted):
    def model(name: str, provenance: str):
        sketch = stamped(0.3, provenance=provenance)
        return summary(name, {"imagenet/top1": 0.7, "imagenet_sketch/top1": sketch})

    models = [model("a", "official"), model("b", "official"), model("c", "tfds")]
    assert "other data than the rest are left out" in shift_scatter(models).caption
    assert "left out" not in shift_scatter(models[:2]).caption


def test_there_is_no_scatter_without_a_clean_accuracy():
    assert shift_scatter([summary("a", {"imagenet_sketch/top1": 0.3})]) is None


def test_shape_bias_is_drawn_from_averages_alone_and_not_from_nothing():
    assert shape_bias_by_class([summary("a", {"imagenet/top1": 0.5})]) is None
    average = summary("a", {"cue_conflict/shape_bias": 0.5})
    assert pixels_of(shape_bias_by_class([average]).png).size


def test_classes_without_a_decision_are_said_to_have_no_data():
    model = full_summary("a", 0.7)
    undecided = {**model.scores, "cue_conflict/shape_bias/bear": stamped(None)}
    picture = shape_bias_by_class([summary("a", undecided)])
    assert "no data for 1 of the markers" in picture.caption
