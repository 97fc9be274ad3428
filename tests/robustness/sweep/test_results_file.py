"""The results file: what is appended comes back, and nothing else is taken for one."""

import numpy as np
import pytest
from sweep_results import FOG, SETTINGS, STAMP, result, written

from lska_jax.robustness.cells import Cell, Hole, ModelStamp
from lska_jax.robustness.sweep.results_file import FORMAT, ResultsFile, load_results
from lska_jax.robustness.sweep.results_lines import encode_line


def test_results_come_back_as_they_were_added(tmp_path):
    path = written(tmp_path / "deep" / "results.jsonl", results=[result()])
    loaded = load_results(path)
    assert loaded.models == {"a": STAMP}
    assert loaded.plan == [FOG, Cell("imagenet_a")]
    back = loaded.cells["a", FOG]
    for name, array in result().outcomes.items():
        np.testing.assert_array_equal(back.outcomes[name], array, strict=True)
    assert back.scores == result().scores
    assert (back.provenance, back.num_images, back.seconds) == ("generated", 11, 1.5)


def test_opening_again_appends_and_repeats_neither_plan_nor_model(tmp_path):
    path = written(tmp_path / "r", results=[result()])
    before = path.read_bytes()
    written(path, results=[result(Cell("imagenet_a"))])
    assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == len(before.splitlines()) + 1
    assert [*load_results(path).cells] == [("a", FOG), ("a", Cell("imagenet_a"))]


def test_a_result_fills_its_hole(tmp_path):
    holes = [Hole(FOG, "not there"), Hole(Cell("imagenet_a"), "neither")]
    path = written(tmp_path / "r", holes=holes)
    assert load_results(path).holes == {hole.cell: hole.reason for hole in holes}
    written(path, results=[result()])
    assert load_results(path).holes == {Cell("imagenet_a"): "neither"}


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_what_a_killed_process_left_of_a_line_is_cut_off(tmp_path, cut):
    path = written(tmp_path / "r", results=[result()])
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: last + cut])
    assert load_results(path).cells == {}
    written(path, results=[result()])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_a_header_that_a_killed_process_left_unfinished_is_begun_anew(tmp_path, cut):
    whole = written(tmp_path / "whole", results=[result()]).read_bytes()
    path = tmp_path / "r"
    path.write_bytes(whole[:cut])
    written(path, results=[result()])
    assert path.read_bytes() == whole


def test_other_settings_are_refused_by_name(tmp_path):
    path = written(tmp_path / "r")
    with pytest.raises(ValueError, match=r"other settings:\n  limit: the file has 0, asked for 5"):
        ResultsFile(path, {**SETTINGS, "limit": 5})


def test_another_model_of_the_same_name_is_refused(tmp_path):
    path = written(tmp_path / "r")
    other = ModelStamp(name="a", sha256="f" * 64, preprocessing="crop 224")
    with (
        ResultsFile(path, SETTINGS) as file,
        pytest.raises(ValueError, match="another model named 'a': weights 000000000000.*ffff"),
    ):
        file.add_model(other)


@pytest.mark.parametrize("content", ["", "hello\n", '{"a": 1}\n', "[1]\n"])
def test_other_files_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "r"
    path.write_text(content + "more\n")
    with pytest.raises(ValueError, match="is no results file"):
        ResultsFile(path, SETTINGS)
    assert path.read_text() == content + "more\n"


def test_another_version_is_refused(tmp_path):
    path = written(tmp_path / "r")
    header, *rest = path.read_text().splitlines(keepends=True)
    changed = encode_line({"format": FORMAT, "version": 99, "settings": SETTINGS})
    path.write_text(changed + "".join(rest))
    with pytest.raises(ValueError, match="has version 99 of the results format; .* writes 2"):
        load_results(path)


@pytest.mark.parametrize(
    "line",
    ["{}", '{"result": {}}', '{"result": 1}', "{", '{"model": {"name": 1}}', '{"odd": 1}', "3"],
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = written(tmp_path / "r")
    number = len(path.read_text().splitlines()) + 1
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=f"line {number}, is damaged"):
        load_results(path)


def test_a_damaged_array_is_named(tmp_path):
    path = written(tmp_path / "r", results=[result()])
    path.write_text(path.read_text().replace('"zlib_b85": "', '"zlib_b85": "00000'))
    with pytest.raises(ValueError, match="is damaged"):
        load_results(path)


def test_a_file_that_is_not_there_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="eval_robustness"):
        load_results(tmp_path / "none")


def test_processes_beside_the_first_write_nothing(tmp_path):
    with ResultsFile(tmp_path / "r", SETTINGS, is_writer=False) as file:
        file.add_result(result())
        assert ("a", FOG) in file.results.cells
    assert not (tmp_path / "r").exists()
