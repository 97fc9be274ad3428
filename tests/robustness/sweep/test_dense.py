"""Segmentors and detectors on corrupted images: cells, means over them, and a sweep."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lska_jax import create_model
from lska_jax.commands.robustness import main
from lska_jax.data.csv_source import CsvSource
from lska_jax.data.digit_scenes import DigitScenes
from lska_jax.data.examples import LabelledImages
from lska_jax.models.table import Preprocessing
from lska_jax.robustness.cells import Cell, CellResult, ModelStamp, Score
from lska_jax.robustness.report.terminal import terminal_table
from lska_jax.robustness.report.write import draw_pictures, paper_form_grids
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, SEVERITIES
from lska_jax.robustness.sweep.classifier import load_classifier
from lska_jax.robustness.sweep.dense import repeat_edges
from lska_jax.robustness.sweep.results_file import Results, load_results
from lska_jax.robustness.sweep.scene_subset import SceneSubset
from lska_jax.robustness.sweep.summary import summarise
from lska_jax.tasks.average_precision import mean_average_precision
from lska_jax.tasks.predict import eval_transform
from lska_jax.weights import ModelFacts, write_model_folder
from lska_jax.weights.pretrained import arrays_of

PREPARED = Preprocessing(image_size=32, crop_pct=1.0, crop_mode="whole", long_side=48)


def results(*, parts=ALL_CORRUPTIONS) -> Results:
    """Return what a detector of AP 0.8 scores that loses 0.1 with each severity."""
    cells = [Cell("objects"), *(Cell("objects_c", part, n) for part in parts for n in SEVERITIES)]
    found = {
        ("mine", cell): CellResult(
            model="mine",
            cell=cell,
            provenance="generated" if cell.part else "own",
            origin="scenes",
            preprocessing="whole",
            num_images=9,
            scores={"box_ap": Score(0.8 - 0.1 * cell.severity), "box_ap50": Score(0.9)},
        )
        for cell in cells
    }
    stamp = ModelStamp(name="mine", sha256="0" * 64, preprocessing="whole")
    return Results({}, plan=cells, models={"mine": stamp}, cells=found)


def test_means_are_over_corruptions_and_severities_and_retention_is_their_part_of_the_clean_one():
    (summary,) = summarise(results(), where="here")
    values = {key: stamped.score.value for key, stamped in summary.scores.items()}
    assert values["objects/box_ap"] == pytest.approx(0.8)
    assert values["objects_c/box_ap/fog/3"] == pytest.approx(0.5)
    assert values["objects_c/box_ap/fog"] == pytest.approx(0.5)
    for count in (15, 19):
        assert values[f"objects_c/mean_box_ap_{count}"] == pytest.approx(0.5)
        assert values[f"objects_c/retention_box_ap_{count}"] == pytest.approx(0.5 / 0.8)
    assert "objects_c/mean_mask_ap_15" not in values


def test_means_need_every_corruption():
    (summary,) = summarise(results(parts=("fog", "snow")), where="here")
    assert "objects_c/box_ap/snow" in summary.scores
    assert not [key for key in summary.scores if "mean" in key or "retention" in key]
    assert "fog box AP" in terminal_table([summary])


def test_a_report_has_the_metrics_by_corruption_and_by_severity():
    summaries = summarise(results(parts=("fog",)), where="here")
    assert [picture.name for picture in draw_pictures(summaries)] == [
        "corruptions_objects_c_box_ap",
        "severities_objects_c_box_ap",
    ]
    assert [grid.name for grid in paper_form_grids(summaries)] == ["paper", "objects_c_box_ap"]


def test_the_edge_of_an_image_goes_on_into_its_padding():
    image = np.zeros((1, 4, 5, 3), np.uint8)
    image[0, :2, :3] = np.arange(6).reshape(2, 3, 1)
    repeated = np.asarray(repeat_edges(jnp.asarray(image), jnp.array([[2, 3]], jnp.int32)))
    np.testing.assert_array_equal(
        repeated[0, ..., 0], [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5]]
    )


def test_some_images_of_a_set_have_its_ids_and_their_own_positions(monkeypatch):
    whole = DigitScenes("test", size=(32, 48))
    some = SceneSubset(whole, np.array([3, 7, 9]))
    assert [some[index].position for index in range(len(some))] == [0, 1, 2]
    np.testing.assert_array_equal(some[1].image, whole[7].image)
    assert some.image_id(2) == 10 and some.path(2) == whole.path(9) and len(some.sizes) == 3
    content = {
        "images": [{"id": identity} for identity in range(1, 12)],
        "annotations": [{"id": 1, "image_id": 8}, {"id": 2, "image_id": 9}],
        "categories": ["kept"],
    }
    monkeypatch.setattr(whole, "annotations", lambda: content)
    assert some.annotations() == {
        "images": [{"id": 4}, {"id": 8}, {"id": 10}],
        "annotations": [{"id": 1, "image_id": 8}],
        "categories": ["kept"],
    }


def write_segmentor(folder):
    head = {"name": "semantic_fpn", "pyramid_channels": 8, "channels": 8}
    small = {"dims": (4,) * 4, "depths": (1,) * 4, "ffn_ratios": (2,) * 4}
    model = create_model("van_lska_tiny", head=head, num_classes=11, **small)
    names = ("background", *map(str, range(10)))
    facts = ModelFacts(config=model.config, preprocessing=PREPARED, class_names=names)
    return write_model_folder(folder, facts, arrays_of(model))


@pytest.mark.slow
def test_a_segmentor_is_measured_cell_by_cell_and_a_second_call_measures_nothing(tmp_path, capsys):
    folder = write_segmentor(tmp_path / "model")
    options = (
        *("--model", str(folder), "--clean", "digit_scenes:32x48", "--clean_split", "test"),
        *("--limit", "5", "--batch_size", "2", "--num_workers", "0", "--out", str(tmp_path)),
    )
    suite = ("--suite", "imagenet,imagenet_c/contrast/1,imagenet_c/contrast/5", "--generate")
    assert main([*options, *suite]) == 0
    cells = load_results(tmp_path / "results.jsonl").cells
    scores = [result.scores for result in cells.values()]
    assert [(result.cell.severity, result.num_images) for result in cells.values()] == [
        *((0, 5), (1, 5), (5, 5))
    ]
    assert all({"miou", "macc", "aacc"} == set(of_cell) for of_cell in scores)
    assert scores[0] != scores[2]
    capsys.readouterr()
    assert main([*options, *suite]) == 0
    assert "3 of 3 cells are measured already" in capsys.readouterr().out
    assert main([*options, "--suite", "imagenet_a"]) == 2
    assert "imagenet_a cannot be measured" in capsys.readouterr().err


def write_labeller(folder):
    model = create_model(
        "van_lska_tiny", num_classes=2, k=7, dims=(4, 4), depths=(1, 1), ffn_ratios=(1, 1)
    )
    facts = ModelFacts(
        config=model.config,
        preprocessing=Preprocessing(image_size=32, crop_pct=1.0),
        class_names=("boat", "sea"),
        is_multi_label=True,
    )
    return write_model_folder(folder, facts, arrays_of(model))


def test_a_classifier_of_several_labels_has_no_top1(tmp_path):
    with pytest.raises(ValueError, match="any number of labels an image, which have no top-1"):
        load_classifier(write_labeller(tmp_path / "model"))


@pytest.mark.slow
def test_a_classifier_of_several_labels_is_measured_by_its_mean_average_precision(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for n in range(7):
        pixels = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    labels = ("sea", "sea|boat", "boat", "", "sea", "boat", "boat|sea")
    lines = [f"{n}.png,{label}" for n, label in enumerate(labels)]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *lines]))
    folder = write_labeller(tmp_path / "model")
    words = [
        *("--model", str(folder), "--clean", f"csv:{tmp_path / 'photos.csv'}", "--generate"),
        *("--suite", "imagenet,imagenet_c/contrast/1,imagenet_c/contrast/5"),
        *("--clean_split", "test", "--batch_size", "4", "--num_workers", "0"),
    ]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    cells = load_results(tmp_path / "out" / "results.jsonl").cells
    assert [str(result.cell) for result in cells.values()] == [
        "labels",
        "labels_c/contrast/1",
        "labels_c/contrast/5",
    ]
    model = create_model(pretrained=folder)
    source = CsvSource(tmp_path / "photos.csv", split="test", is_multi_label=True)
    read = LabelledImages(eval_transform(model.preprocessing), num_labels=2)
    images = np.stack([read(source[n])["image"] for n in range(7)])
    logits = model(np.asarray(images, np.float32) / 255 * 2 - 1)
    expected = mean_average_precision(np.asarray(logits), source.labels > 0)
    clean = cells["model", Cell("labels")]
    assert clean.num_images == 7
    assert clean.scores["map"].value == pytest.approx(expected)
    assert "mAP" in capsys.readouterr().out
    # One whose labels are others is refused, by name.
    (tmp_path / "other.csv").write_text("path,label\n0.png,sky\n1.png,sea")
    words[3] = f"csv:{tmp_path / 'other.csv'}"
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "only in the model: boat" in capsys.readouterr().err
