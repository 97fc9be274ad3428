"""The description of a TFDS set: what is damaged is named, and nothing absurd is asked for."""

import copy
import json
import time
from pathlib import Path

import pytest

from lska_jax.data.opening import inspect_source
from lska_jax.data.sources import SourceFacts

INFO = {
    "fileFormat": "array_record",
    "name": "pets",
    "splits": [{"name": "train", "numBytes": "90", "shardLengths": ["12", "11"]}],
    "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
}
FEATURES = {
    "featuresDict": {
        "features": {
            "image": {"pythonClassName": "features.Image"},
            "label": {"classLabel": {"numClasses": "3"}, "pythonClassName": "x.ClassLabel"},
        }
    }
}


def write_set(root: Path, *, info: object = INFO, features: object = FEATURES) -> Path:
    folder = root / "pets" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def inspect(root: Path) -> SourceFacts:
    return inspect_source("tfds:pets", split="train", data_dir=str(root))


def changed(content: object, path: tuple, value: object) -> object:
    content = copy.deepcopy(content)
    group = content
    for key in path[:-1]:
        group = group[key]
    group[path[-1]] = value
    return content


def test_the_description_is_read_before_it_is_damaged(tmp_path):
    write_set(tmp_path)
    assert inspect(tmp_path) == SourceFacts(num_classes=3, num_examples=23)


LENGTHS = ("splits", 0, "shardLengths")
LABEL = ("featuresDict", "features", "label")


@pytest.mark.parametrize("value", [None, [], "x", 5, {"a": 1}, True, 1e300, [[[]]], -1, "9" * 30])
@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("dataset_info.json", ("splits",)),
        ("dataset_info.json", ("splits", 0)),
        ("dataset_info.json", ("splits", 0, "name")),
        ("dataset_info.json", LENGTHS),
        ("dataset_info.json", (*LENGTHS, 0)),
        ("dataset_info.json", ("fileFormat",)),
        ("dataset_info.json", ("supervisedKeys",)),
        ("features.json", ("featuresDict",)),
        ("features.json", ("featuresDict", "features")),
        ("features.json", LABEL),
        ("features.json", (*LABEL, "classLabel")),
        ("features.json", (*LABEL, "classLabel", "numClasses")),
        ("features.json", (*LABEL, "pythonClassName")),
    ],
)
def test_a_wrong_type_anywhere_is_an_error_about_the_set(file, path, value, tmp_path):
    if file == "dataset_info.json":
        folder = write_set(tmp_path, info=changed(INFO, path, value))
    else:
        folder = write_set(tmp_path, features=changed(FEATURES, path, value))
    try:
        facts = inspect(tmp_path)
    except ValueError as error:
        assert str(folder) in str(error) or "pets:1.0.0" in str(error)
    else:
        # What is left may still make sense: five classes or examples, or none stated.
        assert value in (5, None, [], {"a": 1}) and facts.num_classes <= 5


@pytest.mark.parametrize(
    ("path", "name"),
    [((*LABEL, "classLabel", "numClasses"), "numClasses"), ((*LENGTHS, 0), "shardLengths")],
)
@pytest.mark.parametrize(
    "value", [10**13, "9999999999999", "99999999999999999999", "-5", " 5", "٥"]
)
def test_an_absurd_number_is_refused_at_once(path, name, value, tmp_path):
    info, features = INFO, FEATURES
    if name == "numClasses":
        features = changed(FEATURES, path, value)
    else:
        info = changed(INFO, path, value)
    folder = write_set(tmp_path, info=info, features=features)
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"{folder}/\w+.json is damaged: {name} is .* number"):
        inspect(tmp_path)
    assert time.monotonic() - started < 5


def test_json_that_is_nested_without_end_is_refused(tmp_path):
    folder = write_set(tmp_path)
    (folder / "features.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"features\.json is damaged: .*recursion"):
        inspect(tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "label.labels.txt"])
def test_a_file_that_is_no_text_is_named(file, tmp_path):
    folder = write_set(tmp_path)
    (folder / file).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=f"{folder / file} (cannot be read|is damaged)"):
        inspect(tmp_path)


def test_a_file_larger_than_any_description_is_not_read(tmp_path):
    folder = write_set(tmp_path)
    with open(folder / "features.json", "r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"features\.json cannot be read: .* more than the limit"):
        inspect(tmp_path)


def test_other_names_than_classes_are_refused(tmp_path):
    folder = write_set(tmp_path)
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"labels\.txt names 2 classes, and features\.json has 3"):
        inspect(tmp_path)
