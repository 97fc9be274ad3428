"""Model folders: what is verified, what is refused, and that nothing is half-written."""

import dataclasses
import json
import os

import numpy as np
import pytest
from families import SWIN
from small_models import CLASSES, small_model

from lska_jax import VAN
from lska_jax.models.table import Preprocessing
from lska_jax.weights import ModelFacts, read_facts, read_model_folder, write_model_folder
from lska_jax.weights.hub import Located
from lska_jax.weights.model_facts import facts_from_json, facts_to_json, seal
from lska_jax.weights.pretrained import arrays_of


@pytest.fixture(scope="module")
def model() -> VAN:
    return small_model(k=11, layer_norm_epsilon=1e-5)


@pytest.fixture
def facts(model) -> ModelFacts:
    return ModelFacts(
        config=model.config,
        preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3), crop_pct=0.875),
        class_names=tuple("abcdef"),
        license="mit",
        source={"step": 3, "data": "digits"},
    )


@pytest.fixture
def folder(tmp_path, facts, model):
    return write_model_folder(tmp_path / "model", facts, arrays_of(model))


def change_config(folder, change) -> None:
    """Change what config.json says, and its hash with it."""
    path = folder / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_bytes(seal(record))


def test_everything_comes_back_as_it_was_written(folder, facts, model):
    read, arrays = read_model_folder(folder)
    assert read == facts == read_facts(folder)
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(arrays[path], array)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("place", [20, 3000, -1])
def test_a_changed_byte_of_the_weights_is_refused(folder, place):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[place] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was published: its SHA-256 is"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b", "..\\b", ""])
def test_a_file_name_that_leaves_the_folder_is_refused(folder, name):
    (folder.parent / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    change_config(folder, lambda record: record["weights"].update(file=name))
    with pytest.raises(ValueError, match="leaves the model folder"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leaves_the_folder_is_refused(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ValueError, match="leaves the model folder"):
        read_model_folder(folder)
    assert read_model_folder(Located(folder, folder.parent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format="other"), "not a model folder's config"),
        (lambda r: r.update(format_version=9), "format version 9; this version"),
        (lambda r: r.pop("architecture"), "has no 'architecture'"),
        (lambda r: r["architecture"].pop("dims"), "has no 'dims'"),
        (lambda r: r["architecture"].update(dims=[4, "6"]), "dims.1.='6' must be a whole number"),
        (lambda r: r["architecture"].update(dims=[4, 8]), "expected"),
        (lambda r: r["architecture"].update(k=12), "k=12"),
        (lambda r: r["architecture"].update(k=True), "k=True must be a whole number"),
        (lambda r: r["architecture"].update(k=23), "do not fit the config's architecture"),
        (lambda r: r["architecture"].update(depths=[1, 3]), "stages/1/blocks/2/.*missing"),
        (lambda r: r["architecture"].update(attention="os.system"), "allowed: lska, lka"),
        (lambda r: r["architecture"].update(layer_norm_epsilon="x"), "layer_norm_epsilon"),
        (lambda r: r["preprocessing"].update(mean=[0.5]), "mean must be 3 numbers"),
        (lambda r: r["preprocessing"].update(std=[0.5, 0, 1]), "std must be 3 numbers from"),
        (lambda r: r["preprocessing"].update(interpolation="box"), "interpolation must be one of"),
        (lambda r: r["preprocessing"].update(image_size=-1), "image_size must be from 1"),
        (lambda r: r["preprocessing"].update(crop_pct=0), "crop_pct must be a fraction"),
        (lambda r: r.update(labels=["a"]), "1 labels for 6 classes"),
        (lambda r: r.update(labels=[1] * CLASSES), "labels must be texts"),
        (lambda r: r.update(weights=None), "records no SHA-256"),
        (lambda r: r["weights"].update(sha256="00"), "its SHA-256 is"),
    ],
)
def test_a_config_that_is_damaged_is_refused_in_words(folder, change, message):
    change_config(folder, change)
    with pytest.raises(ValueError, match=message):
        read_model_folder(folder)


def test_a_config_that_is_no_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        read_facts(folder)


def test_a_folder_without_a_config_names_the_import_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="lska-jax import"):
        read_facts(tmp_path)


def test_a_config_of_nobody_names_the_ways_to_a_model_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"train": true}')
    with pytest.raises(ValueError, match=r"lska-jax import FILE.*lska-jax publish"):
        read_facts(tmp_path)


@pytest.mark.parametrize(
    "bits", [(0, 3, 6, 1, 4, 7, 2, 5), pytest.param(None, marks=pytest.mark.slow)]
)
def test_every_flipped_bit_of_the_config_is_refused_with_its_name(folder, bits):
    """Flip one bit of each byte, or every one."""
    path = folder / "config.json"
    data = path.read_bytes()
    assert read_facts(folder)
    unnoticed = []
    for place in range(len(data)):
        for bit in range(8) if bits is None else (bits[place % 8],):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                read_facts(folder)
                unnoticed.append((place, bit))
            except ValueError as error:
                assert str(path) in str(error)
    assert unnoticed == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-05", "1E-05"),
        (' "license"', '\t"license"'),
        ('"format_version": 2', '"format_version": 1'),
    ],
)
def test_a_config_that_says_the_same_in_other_letters_is_refused(folder, old, new):
    path = folder / "config.json"
    text = path.read_text()
    path.write_text(text.replace(old, new))
    assert path.read_text() != text
    with pytest.raises(ValueError, match="is not the file that was written"):
        read_facts(folder)


def test_a_folder_of_the_first_version_is_read_without_a_hash_of_its_config(folder, facts):
    path = folder / "config.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_text(json.dumps({**record, "format_version": 1}))
    assert read_facts(folder) == facts
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is not the file that was written"):
        read_facts(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["architecture"].update(k=10**12), "k=1000000000000 must be at most"),
        (lambda r: r["architecture"].update(depths=[1, 10**9]), "depths=.* is more than"),
        (lambda r: r["architecture"].update(dims=[10**12, 8]), "dims=.* is more than"),
        (lambda r: r["architecture"].update(num_classes=10**9), "num_classes=1000000000 is more"),
        (lambda r: r["architecture"].update(layer_norm_epsilon=0.5), "layer_norm_epsilon=0.5 must"),
        (lambda r: r["architecture"].update(layer_norm_epsilon=1e-300), "must be from 1e-15"),
        (lambda r: r["preprocessing"].update(image_size=10**9), "image_size must be from 1 to"),
        (lambda r: r["preprocessing"].update(crop_pct=1e-9), "crop_pct must be"),
        (lambda r: r["preprocessing"].update(mean=[1e30, 0, 0]), "mean must be 3 numbers"),
        (lambda r: r["preprocessing"].update(std=[1e-30, 1, 1]), "std must be 3 numbers"),
    ],
)
def test_absurd_values_are_refused_at_once(folder, change, message):
    change_config(folder, change)
    with pytest.raises(ValueError, match=message) as refusal:
        read_model_folder(folder)
    assert str(folder / "config.json") in str(refusal.value)


def test_an_absurd_side_of_windows_is_refused_at_once(tmp_path):
    config = SWIN.config()
    facts = ModelFacts(config=config, preprocessing=Preprocessing(image_size=32))
    record = json.loads(facts_to_json(facts, sha256="", size=1))
    record["architecture"]["image_size"] = 1_000_000
    with pytest.raises(ValueError, match="image_size=1000000 is more than 16384"):
        facts_from_json(record, tmp_path)


def test_others_may_read_the_files_as_the_umask_says(tmp_path, facts, model):
    before = os.umask(0o022)
    try:
        folder = write_model_folder(tmp_path / "model", facts, arrays_of(model))
    finally:
        os.umask(before)
    assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == {
        "README.md": 0o644,
        "config.json": 0o644,
        "model.safetensors": 0o644,
    }
    assert folder.stat().st_mode & 0o777 == 0o755


def test_names_that_are_no_text_are_written_escaped_and_come_back(tmp_path, facts, model):
    named = dataclasses.replace(facts, class_names=("\udcff", "é", *"cdef"), license="\udcfe")
    folder = write_model_folder(tmp_path / "model", named, arrays_of(model))
    assert read_facts(folder) == named


def test_a_model_folder_is_replaced_only_when_asked_to(folder, facts, model):
    before = (folder / "config.json").read_text()
    with pytest.raises(FileExistsError, match="replace a model folder with --overwrite"):
        write_model_folder(folder, facts, arrays_of(model))
    assert (folder / "config.json").read_text() == before
    arrays = arrays_of(model)
    arrays["classifier/bias"] = arrays["classifier/bias"] + 1
    write_model_folder(folder, facts, arrays, overwrite=True)
    np.testing.assert_array_equal(
        read_model_folder(folder)[1]["classifier/bias"], arrays["classifier/bias"]
    )
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_failed_write_leaves_nothing(tmp_path, facts, model, monkeypatch):
    from lska_jax.weights import model_folder

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(model_folder, "write_card", fail)
    with pytest.raises(OSError, match="disk full"):
        write_model_folder(tmp_path / "model", facts, arrays_of(model))
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_another_model_are_not_written(tmp_path, facts, model):
    arrays = arrays_of(model)
    del arrays["classifier/bias"]
    with pytest.raises(ValueError, match="classifier/bias: missing"):
        write_model_folder(tmp_path / "model", facts, arrays)


def test_a_card_cannot_be_broken_by_what_it_states(tmp_path, facts, model):
    odd = dataclasses.replace(facts, license='x"\nscript: y', source={"origin": "a | b\n# c `d`"})
    folder = write_model_folder(tmp_path / "odd", odd, arrays_of(model))
    card = (folder / "README.md").read_text()
    assert 'license: "x\\"\\nscript: y"' in card
    assert "| Origin | a \\| b # c 'd' |" in card
