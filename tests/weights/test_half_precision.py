"""Weights stored in float16: what is rounded, what is not, and what a folder says of it."""

import json

import numpy as np
import pytest
from small_models import small_model

from lska_jax.commands import publish
from lska_jax.weights import ModelFacts, read_facts, read_model_folder, write_model_folder
from lska_jax.weights.half_precision import fits_float16, in_stored_dtype
from lska_jax.weights.model_facts import seal
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.safetensors_file import open_safetensors


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        p: rng.normal(size=a.shape).astype(a.dtype) for p, a in arrays_of(small_model()).items()
    }


@pytest.fixture
def folder(tmp_path, arrays):
    model = small_model()
    facts = ModelFacts(
        config=model.config, preprocessing=model.preprocessing, license="mit", source={"epochs": 3}
    )
    return write_model_folder(tmp_path / "half", facts, arrays, dtype="float16")


def test_matrices_come_back_rounded_and_everything_else_as_it_was(folder, arrays):
    _, read = read_model_folder(folder)
    assert read.keys() == arrays.keys()
    for path, array in arrays.items():
        expected = array.astype(np.float16).astype(np.float32) if array.ndim > 1 else array
        assert read[path].dtype == np.float32
        np.testing.assert_array_equal(read[path], expected)


def test_config_and_card_say_in_which_numbers_the_file_is(folder, arrays):
    stored = open_safetensors(folder / "model.safetensors")
    assert {stored[p].dtype for p, a in arrays.items() if a.ndim > 1} == {"float16"}
    assert {stored[p].dtype for p, a in arrays.items() if a.ndim == 1} == {"float32"}
    assert json.loads((folder / "config.json").read_text())["weights"]["dtype"] == "float16"
    assert (
        "| Stored as | float16, one-dimensional arrays float32"
        in (folder / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("scale", "is_held"), [(1.0, True), (1e-4, True), (1e-6, False), (1e5, False), (0.0, True)]
)
def test_what_float16_cannot_hold_stays_float32(scale, is_held):
    array = np.random.default_rng(1).normal(size=(8, 9)).astype(np.float32) * np.float32(scale)
    assert fits_float16(array) is is_held
    (stored,) = in_stored_dtype({"kernel": array}, "float16").values()
    assert stored.dtype == (np.float16 if is_held else np.float32)


def test_a_few_tiny_values_among_others_do_not_keep_an_array_from_float16():
    array = np.array([[1.0, 1e-9], [-0.5, 2e-7]], np.float32)
    assert fits_float16(array)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_rounded(value):
    assert not fits_float16(np.array([[1.0, value]], np.float32))


@pytest.mark.parametrize(
    ("stated", "message"),
    [(None, "is float16; a model folder holds float32"), ("int8", "weights are 'int8'; allowed")],
)
def test_a_folder_that_says_something_else_of_its_file_is_refused(folder, stated, message):
    path = folder / "config.json"
    record = json.loads(path.read_text())
    record["weights"] |= {"dtype": stated}
    if stated is None:
        del record["weights"]["dtype"]
    path.write_bytes(seal(record))
    with pytest.raises(ValueError, match=message):
        read_model_folder(folder)


def test_another_dtype_is_refused_before_anything_is_written(tmp_path, arrays):
    facts = ModelFacts(config=small_model().config, preprocessing=small_model().preprocessing)
    with pytest.raises(ValueError, match="dtype is 'bfloat16'; weights are stored in float32 or"):
        write_model_folder(tmp_path / "out", facts, arrays, dtype="bfloat16")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_written_anew_in_float32_and_back(folder, tmp_path):
    single, half = tmp_path / "single", tmp_path / "again"
    assert publish.main([str(folder), "--out", str(single), "--license", "bsd"]) == 0
    assert publish.main([str(single), "--out", str(half), "--dtype", "float16"]) == 0
    size = {place: (place / "model.safetensors").stat().st_size for place in (single, half)}
    assert size[half] < 0.8 * size[single]
    assert (half / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    facts = read_facts(half)
    assert facts.license == "bsd" and facts.source == read_facts(folder).source


def test_a_card_has_what_its_writer_says_besides(folder, tmp_path):
    (tmp_path / "about.md").write_text("## Licence\n\nNone: `ask`.\n")
    words = [str(folder), "--out", str(tmp_path / "out"), "--about", str(tmp_path / "about.md")]
    assert publish.main(words) == 0
    assert (tmp_path / "out" / "README.md").read_text().endswith("\n\n## Licence\n\nNone: `ask`.\n")


def test_a_folder_has_no_step_to_choose(folder, tmp_path, capsys):
    assert publish.main([str(folder), "--out", str(tmp_path / "out"), "--step", "3"]) == 2
    assert "has neither steps nor averages" in capsys.readouterr().err
