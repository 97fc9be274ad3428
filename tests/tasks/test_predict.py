"""Predicting from image files: the same numbers as by hand, and files in every state."""

import csv
import json
import os

import jax
import numpy as np
import pytest
from PIL import Image
from small_models import ONE_BLOCK, small_model, small_state_dict

import lska_jax
from lska_jax import create_model
from lska_jax.commands.predict import main
from lska_jax.data.augment import EvalTransform
from lska_jax.models.table import Preprocessing
from lska_jax.running import compilation_cache
from lska_jax.tasks.predict import _in_engine, find_images, predict
from lska_jax.weights import ModelFacts, load_state_dict, write_model_folder
from lska_jax.weights.pretrained import arrays_of

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
PREPARED = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), image_size=32, crop_pct=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = small_model(k=7, **ONE_BLOCK)
    load_state_dict(model, small_state_dict(k=7, **ONE_BLOCK))
    facts = ModelFacts(config=model.config, preprocessing=PREPARED, class_names=NAMES)
    return write_model_folder(tmp_path_factory.mktemp("m") / "model", facts, arrays_of(model))


@pytest.fixture
def pictures(tmp_path):
    """Five pictures in two folders, of several modes, and one that is broken."""
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, mode, channels in (
        ("a.jpg", "RGB", 3),
        ("b.png", "L", 1),
        ("c.png", "RGBA", 4),
        ("deep/d.JPEG", "RGB", 3),
    ):
        pixels = rng.integers(0, 256, (40, 52, channels), np.uint8)
        Image.fromarray(pixels.squeeze(), mode=None).convert(mode).save(root / name)
    (root / "deep" / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def broken(pictures):
    path = pictures / "broken.jpg"
    path.write_bytes((pictures / "a.jpg").read_bytes()[:300])
    return path


def by_hand(folder, path) -> np.ndarray:
    model = create_model(pretrained=folder)
    model.eval()
    transform = EvalTransform(image_size=32, crop_pct=0.8)
    pixels = transform(path.read_bytes()).astype(np.float64) / 255
    x = (pixels - np.array(PREPARED.mean)) / np.array(PREPARED.std)
    return np.asarray(jax.nn.softmax(jax.jit(lambda x: model(x))(x[None].astype(np.float32)))[0])


def test_probabilities_are_those_of_the_model_on_prepared_pixels(folder, pictures):
    images = find_images([pictures])
    predictions = list(predict(folder, images, top=6, batch_size=3))
    assert [p.image for p in predictions] == list(map(str, images))
    for image, prediction in list(zip(images, predictions, strict=True))[::3]:
        expected = by_hand(folder, image)
        assert [score.label for score in prediction.scores] == np.argsort(-expected).tolist()
        for score in prediction.scores:
            # Float32 rounding of a folded network.
            assert score.probability == pytest.approx(expected[score.label], rel=1e-4)
            assert score.name == NAMES[score.label]


def test_folders_are_searched_at_any_depth_in_a_fixed_order(pictures):
    found = [str(p.relative_to(pictures)) for p in find_images([pictures])]
    assert found == ["a.jpg", "b.png", "c.png", "deep/d.JPEG"]
    file = pictures / "c.png"
    assert find_images([file, pictures / "deep"]) == [file, pictures / "deep" / "d.JPEG"]


def test_the_command_prints_five_named_classes_an_image(folder, pictures, capsys):
    assert main([str(folder), str(pictures / "a.jpg"), str(pictures / "deep")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(pictures / "a.jpg") and lines[6] == str(pictures / "deep" / "d.JPEG")
    assert len(lines) == 12
    percent, unit, name, label = lines[1].split()
    assert unit == "%" and label == f"({NAMES.index(name)})" and 0 < float(percent) <= 100


def test_a_broken_image_is_named_and_skipped_with_exit_status_1(folder, pictures, broken, capsys):
    assert main([str(folder), str(pictures)]) == 1
    captured = capsys.readouterr()
    assert f"Skipped {broken}: " in captured.err
    assert str(broken) not in captured.out and str(pictures / "deep" / "d.JPEG") in captured.out


def test_csv_has_one_row_a_class(folder, pictures, broken, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert main([str(folder), str(pictures), "--output", str(output), "--top", "2"]) == 1
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[0]["image"] == str(pictures / "a.jpg")
    assert [row["rank"] for row in rows[:2]] == ["1", "2"]
    assert NAMES[int(rows[0]["label"])] == rows[0]["name"]
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    assert "4 images, 1 skipped" in capsys.readouterr().out


def test_json_holds_predictions_and_what_was_skipped(folder, pictures, broken, tmp_path):
    output = tmp_path / "out.json"
    assert main([str(folder), str(pictures), "--output", str(output)]) == 1
    written = json.loads(output.read_text())
    assert len(written["predictions"]) == 4
    top = written["predictions"][0]["top"]
    assert len(top) == 5 and set(top[0]) == {"label", "name", "probability"}
    assert [entry["image"] for entry in written["skipped"]] == [str(broken)]


def test_the_limit_on_pixels_is_an_option(folder, pictures, capsys):
    Image.new("RGB", (20, 20)).save(pictures / "small.png")
    places = [str(folder), str(pictures / "a.jpg"), str(pictures / "small.png")]
    assert main([*places, "--max_image_pixels", "2079"]) == 1
    captured = capsys.readouterr()
    assert "small.png" in captured.out and "a.jpg" not in captured.out
    assert "a.jpg: 52 x 40 pixels are more than the limit of 2,079" in captured.err
    with pytest.raises(ValueError, match="max_pixels is 0"):
        lska_jax.predict(folder, pictures, max_image_pixels=0)


def test_a_name_that_is_no_text_is_written_escaped(folder, pictures, tmp_path):
    os.rename(pictures / "a.jpg", os.fsencode(pictures) + b"/caf\xe9.jpg")
    for output in (tmp_path / "out.csv", tmp_path / "out.json"):
        assert main([str(folder), str(pictures), "--output", str(output)]) == 0
        assert r"caf\udce9.jpg" in output.read_text()


def test_what_was_predicted_before_an_error_is_kept(folder, pictures, tmp_path, monkeypatch):
    def fail_at_the_end(*arguments, **options):
        yield from list(predict(*arguments, **options))[:-1]
        raise OSError("the device is gone")

    monkeypatch.setattr("lska_jax.tasks.predict.predict", fail_at_the_end)
    output = tmp_path / "out.csv"
    assert main([str(folder), str(pictures), "--output", str(output), "--top", "1"]) == 2
    assert len((tmp_path / "out.partial.csv").read_text().splitlines()) == 1 + 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial.csv", "pictures"]


def test_predictions_that_cannot_be_written_are_printed(
    folder, pictures, tmp_path, monkeypatch, capsys
):
    def fail(*unused):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    assert main([str(folder), str(pictures), "--output", str(tmp_path / "out.csv")]) == 2
    said = capsys.readouterr()
    assert str(pictures / "c.png") in said.out and "no space left" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jpg"], "There is no image or folder nothing.jpg"),
        (["PICTURES", "--output", "x.txt"], "must end in .csv or .json"),
        (["PICTURES", "--output", "no/such/x.csv"], "There is no folder no/such"),
        (["PICTURES", "--output", "FOLDER.csv"], "is a folder; name a file"),
        (["PICTURES", "--top", "0"], "must be positive"),
        (["EMPTY"], "holds no image"),
    ],
)
def test_mistakes_end_in_one_readable_line(folder, pictures, tmp_path, arguments, message, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    places = {
        "PICTURES": str(pictures),
        "EMPTY": str(tmp_path / "empty"),
        "FOLDER.csv": str(tmp_path / "folder.csv"),
    }
    assert main([str(folder), *[places.get(a, a) for a in arguments]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error and "Traceback" not in error


def test_a_model_of_one_channel_sees_grey_pictures_and_names_classes_by_number(tmp_path, pictures):
    model = small_model(in_channels=1, k=7, **ONE_BLOCK)
    facts = ModelFacts(
        config=model.config, preprocessing=model.preprocessing._replace(image_size=16)
    )
    folder = write_model_folder(tmp_path / "grey", facts, arrays_of(model))
    (prediction,) = predict(folder, [pictures / "a.jpg"])
    assert prediction.scores[0].name == f"class {prediction.scores[0].label}"


def test_a_model_without_a_classifier_predicts_nothing(tmp_path, pictures, capsys):
    model = small_model(num_classes=0, k=7, **ONE_BLOCK)
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    folder = write_model_folder(tmp_path / "body", facts, arrays_of(model))
    assert main([str(folder), str(pictures)]) == 2
    assert "has no classifier" in capsys.readouterr().err


def test_probabilities_that_are_not_finite_are_a_problem_of_the_image(tmp_path, pictures, capsys):
    model = small_model(k=7, **ONE_BLOCK)
    facts = ModelFacts(config=model.config, preprocessing=PREPARED)
    arrays = {path: np.full_like(array, np.nan) for path, array in arrays_of(model).items()}
    folder = write_model_folder(tmp_path / "diverged", facts, arrays)
    assert main([str(folder), str(pictures / "a.jpg")]) == 1
    said = capsys.readouterr()
    assert "a.jpg: the model's outputs for it are not finite" in said.err and said.out == ""


@pytest.mark.parametrize("views", ["one", "flip"])
def test_another_engines_logits_of_any_size_are_probabilities(views):
    # Warnings are errors: exp of the first would overflow.
    logits = np.asarray([[-1e4, -100, -1, 0, 2, 1e4]], np.float32)
    for is_multi_label in (True, False):
        facts = ModelFacts(
            config=small_model().config, preprocessing=PREPARED, is_multi_label=is_multi_label
        )
        found = _in_engine(lambda images: logits, facts, views)(np.zeros((1, 4, 4, 3), np.uint8))
        expected = jax.nn.sigmoid(logits) if is_multi_label else jax.nn.softmax(logits)
        assert found.dtype == np.float32
        # Float32 rounding of exp; the mean of views is cut off at 1e-30.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-29)


@pytest.mark.parametrize("stray", [np.nan, np.inf, -np.inf])
def test_another_engines_logits_that_are_not_finite_are_not_hidden(stray):
    logits = np.asarray([[0, 1, 2, 3, 4, stray], [0, 1, 2, 3, 4, 5]], np.float32)
    facts = ModelFacts(config=small_model().config, preprocessing=PREPARED)
    found = _in_engine(lambda images: logits, facts, "one")(np.zeros((2, 4, 4, 3), np.uint8))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("views", ["one", "ten"])
def test_a_second_start_builds_no_network_and_gives_the_same(
    folder, pictures, views, tmp_path, monkeypatch
):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    before = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009
    images = find_images([pictures])
    usual = list(predict(folder, images, top=6, views=views, batch_size=2))
    # Folded and in several batches against as it is: float32 rounding.
    assert compilation_cache.use_compilation_cache(str(tmp_path / "kept"))
    try:
        kept = list(predict(folder, images, top=6, views=views))
        monkeypatch.setattr("lska_jax.weights.create.create_model", None)
        again = list(predict(folder, images, top=6, views=views))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert again == kept
    for one, other in zip(usual, kept, strict=True):
        assert [s.label for s in one.scores] == [s.label for s in other.scores]
        np.testing.assert_allclose(
            [s.probability for s in one.scores], [s.probability for s in other.scores], rtol=1e-5
        )
