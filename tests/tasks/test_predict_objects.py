"""Finding objects in image files: prepared as an evaluation does, drawn, and written as JSON."""

import contextlib
import dataclasses
import json
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lska_jax import VANConfig
from lska_jax.commands import predict as command
from lska_jax.data.coco_masks import decode_mask, encode_masks
from lska_jax.data.label_maps import read_label_map
from lska_jax.models.heads import heads
from lska_jax.models.table import Preprocessing
from lska_jax.tasks import predict_objects as module
from lska_jax.tasks.detections import FoundObjects
from lska_jax.tasks.predict_label_maps import LabelMapPrediction
from lska_jax.tasks.predict_objects import ObjectPrediction, canvases, normalise_inside
from lska_jax.weights import ModelFacts

NAMES = ("cat", "dog")
PREPARED = Preprocessing(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.4),
    image_size=60,
    crop_pct=1.0,
    crop_mode="whole",
    long_side=90,
)


FACTS = ModelFacts(
    config=VANConfig(attention="lska", num_classes=2, dims=(4,), depths=(1,), ffn_ratios=(2,)),
    preprocessing=PREPARED,
    class_names=NAMES,
)


class Found(NamedTuple):
    boxes: jnp.ndarray
    scores: jnp.ndarray
    labels: jnp.ndarray
    is_valid: jnp.ndarray
    masks: None = None


class WholeImage:
    """A detector that finds one object as large as the image, as surely as its mean is high."""

    def detect(self, images, sizes, scales):
        height, width = sizes[0, 0] / scales[0, 0], sizes[0, 1] / scales[0, 1]
        box = jnp.stack([jnp.zeros(()), jnp.zeros(()), width, height])
        area = (sizes[0, 0] * sizes[0, 1]).astype(jnp.float32)
        return Found(
            jnp.stack([box, box])[None],
            jnp.array([[0.0, 0.0]]).at[0, 0].set(jnp.sum(images[..., 0]) / area),
            jnp.array([[1, 0]], jnp.int32),
            jnp.array([[True, False]]),
        )


@pytest.fixture
def stand_in(monkeypatch):
    class Head(NamedTuple):
        task: str = "detection"

    monkeypatch.setattr(module, "read_facts", lambda place: FACTS)
    monkeypatch.setattr(module, "head_of", lambda config: Head())
    monkeypatch.setattr(module, "create_model", lambda **_: WholeImage())
    monkeypatch.setattr(module, "fold_for_inference", lambda model: model)


def write_image(path, size, level=128):
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
    return path


def test_images_of_both_kinds_are_found_in_their_own_pixels(tmp_path, stand_in):
    wide = write_image(tmp_path / "wide.png", (40, 70), level=255)
    tall = write_image(tmp_path / "tall.png", (75, 31), level=102)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    first, second, third = module.predict_objects("model", [wide, broken, tall])
    np.testing.assert_allclose(first.found.boxes, [[0, 0, 70, 40]], atol=1e-4)
    np.testing.assert_allclose(third.found.boxes, [[0, 0, 31, 75]], atol=1e-4)
    # (255 / 255 - .4) / .2 and (102 / 255 - .4) / .2, over the image alone: padding is zero.
    assert first.found.scores[0] == pytest.approx(3.0, abs=1e-4)
    assert third.found.scores[0] == pytest.approx(0.0, abs=1e-4)
    assert first.found.labels.tolist() == [1] and first.class_names == NAMES
    assert second.found is None and second.problem == "not an image file"


def test_canvases_hold_every_image_that_is_resized_to_fit():
    assert canvases(PREPARED) == ((64, 96), (96, 64))


def test_padding_is_zero_after_normalisation():
    pixels = jnp.full((1, 4, 6, 3), 77, jnp.uint8)
    images = np.asarray(
        normalise_inside(pixels, jnp.array([[3, 5]], jnp.int32), preprocessing=PREPARED)
    )
    assert (images[0, :3, :5] != 0).all()
    assert not images[0, 3:].any() and not images[0, :, 5:].any()


def test_another_network_is_refused(monkeypatch):
    monkeypatch.setattr(module, "read_facts", lambda place: FACTS)
    with pytest.raises(ValueError, match="model finds no objects: it is a VAN"):
        next(module.predict_objects("model", []))


# --- the command


@pytest.fixture
def found(monkeypatch, tmp_path):
    """Two images of one name, an object with a mask in each, and a broken one."""
    head = next(head for head in heads().values() if head.task == "segmentation")
    detector = dataclasses.replace(head, task="detection")
    mask = np.zeros((1, 40, 50), bool)
    mask[0, 5:20, 10:30] = True

    def predict_objects(folder, images, **_):
        for image in map(str, images):
            if "broken" in image:
                yield ObjectPrediction(image, None, None, NAMES, problem="cut short")
                continue
            objects = FoundObjects(
                np.array([[10, 5, 30, 20]], np.float32),
                np.array([0.75], np.float32),
                np.array([1]),
                encode_masks(mask),
            )
            yield ObjectPrediction(image, np.zeros((40, 50, 3), np.uint8), objects, NAMES)

    monkeypatch.setattr(module, "predict_objects", predict_objects)
    monkeypatch.setattr("lska_jax.models.heads.head_of", lambda config: detector)
    monkeypatch.setattr("lska_jax.weights.model_folder.read_facts", lambda place: FACTS)
    monkeypatch.setattr("lska_jax.training.model_places.as_model_folder", as_it_is)
    (tmp_path / "deep").mkdir()
    return [
        str(write_image(tmp_path / name, (40, 50)))
        for name in ("a.png", "deep/a.jpg", "broken.png")
    ]


def as_it_is(place, *, report):
    return contextlib.nullcontext(place)


def test_the_command_draws_every_image_and_writes_what_was_found(found, tmp_path, capsys):
    assert command.main(["model", *found, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 pictures and predictions.json, 1 skipped" in said.out
    assert "broken.png: cut short" in said.err
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["picture"] for entry in record["predictions"]] == ["a.png", "a_2.png"]
    (one,) = record["predictions"][1]["objects"]
    assert (one["label"], one["name"], one["score"]) == (1, "dog", 0.75)
    assert one["box"] == [10, 5, 30, 20]
    assert decode_mask(one["mask"], height=40, width=50).sum() == 300
    with Image.open(tmp_path / "out" / "a_2.png") as picture:
        assert np.asarray(picture).any()


def test_without_a_folder_objects_are_printed(found, capsys):
    assert command.main(["model", found[0]]) == 0
    assert capsys.readouterr().out == f"{found[0]}\n   75.0 %  dog (1)  10 5 30 20\n"
    assert command.main(["model", found[0], "--least_score", "0.8"]) == 0
    assert capsys.readouterr().out == f"{found[0]}\n  nothing\n"


def test_a_segmentors_classes_are_drawn_and_kept_as_a_label_map(found, tmp_path, monkeypatch):
    label_map = np.zeros((40, 50), np.uint8)
    label_map[:10] = 1
    pixels = np.zeros((40, 50, 3), np.uint8)
    said = [LabelMapPrediction("deep/b.jpg", pixels, label_map, NAMES)]
    place = "lska_jax.tasks.predict_label_maps.predict_label_maps"
    monkeypatch.setattr(place, lambda *_, **__: said)
    head = next(head for head in heads().values() if head.task == "segmentation")
    monkeypatch.setattr("lska_jax.models.heads.head_of", lambda config: head)
    assert command.main(["model", found[0], "--out", str(tmp_path / "out")]) == 0
    (one,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert one["classes"] == [
        {"label": 0, "name": "cat", "part": 0.75},
        {"label": 1, "name": "dog", "part": 0.25},
    ]
    stored = read_label_map((tmp_path / "out" / one["labels"]).read_bytes())
    np.testing.assert_array_equal(stored, label_map)
    with Image.open(tmp_path / "out" / one["picture"]) as picture:
        assert picture.height == 440 and picture.width > 550


def test_names_that_are_no_text_or_very_long_lose_nothing(found, tmp_path):
    images = [
        str(write_image(tmp_path / name, (40, 50))) for name in ("\udce9.png", f"{'x' * 246}.png")
    ]
    assert command.main(["model", *images, "--out", str(tmp_path / "out")]) == 0
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [one["picture"] for one in said] == ["\\xe9.png", f"{'x' * 180}.png"]
    assert all((tmp_path / "out" / one["picture"]).is_file() for one in said)


def test_work_that_ends_early_keeps_what_was_found(found, tmp_path, monkeypatch):
    saved = []

    def full_disk(pictures, out, name):
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(name)
        return {}

    monkeypatch.setattr("lska_jax.commands.predict_scenes._save", full_disk)
    assert command.main(["model", found[0], found[1], found[2], "--out", str(tmp_path / "o")]) == 2
    partial = json.loads((tmp_path / "o" / "predictions.partial.json").read_text())
    assert len(partial["predictions"]) == 2


def test_the_place_of_the_results_is_tried_before_the_work(found, tmp_path, monkeypatch, capsys):
    (tmp_path / "out" / "predictions.json").mkdir(parents=True)
    monkeypatch.setattr(module, "predict_objects", None)
    assert command.main(["model", found[0], "--out", str(tmp_path / "out")]) == 2
    assert "predictions.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--output", "x.csv"], "give Semantic FPN --out DIR"),
        (["--least_score", "2"], "must be from 0 to 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(found, options, problem, capsys):
    assert command.main(["model", found[0], *options]) == 2
    assert problem in capsys.readouterr().err
