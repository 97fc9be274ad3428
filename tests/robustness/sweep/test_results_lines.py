"""A line of a results file is used only if it is what was written, of its types, and not absurd."""

import base64
import json
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from sweep_results import FOG, SETTINGS, result, written

from lska_jax.robustness import load_summaries
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sweep import results_file
from lska_jax.robustness.sweep.results_file import ResultsFile, ResultsNotWritten, load_results
from lska_jax.robustness.sweep.results_lines import decode_line, encode_line, encode_result
from lska_jax.running.folder_lock import InUse

OLD = Path(__file__).parents[3] / "docs" / "robustness" / "cifar10" / "results.jsonl"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("results") / "r", results=[result()])


def test_every_changed_bit_is_noticed(path, tmp_path):
    """A changed end of a line joins two, or makes the last one unfinished: it is measured again."""
    whole = path.read_bytes()
    damaged = tmp_path / "damaged"
    for place in range(0, len(whole) - 1, 3):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match="damaged|is no results file|has version"):
            load_results(damaged)


def test_files_without_sums_are_read_and_continued(tmp_path):
    copy = Path(shutil.copy(OLD, tmp_path / "results.jsonl"))
    before = load_results(copy)
    assert len(before.cells) > 100
    with ResultsFile(copy, before.settings) as file:
        file.add_result(result(model="LSKA k=7"))
    assert len(load_results(copy).cells) == len(before.cells) + 1


def changed(**changes) -> dict:
    return {"result": {**json.loads(json.dumps(encode_result(result()))), **changes}}


def with_array(**changes) -> dict:
    return changed(outcomes={"top1": {**changed()["result"]["outcomes"]["top1"], **changes}})


def bomb() -> str:
    return base64.b85encode(zlib.compress(bytes(50_000_000), 9)).decode()


WRONG = {
    "no object": [1],
    "a number for a name": changed(model=1),
    "an unknown provenance": changed(provenance="found"),
    "images below zero": changed(num_images=-1),
    "images that are no whole number": changed(num_images=11.5),
    "a switch for a number": changed(num_broken=True),
    "text for seconds": changed(seconds="1"),
    "a cell of two": changed(cell=["imagenet_c", "fog"]),
    "a cell with a fraction": changed(cell=["imagenet_c", "fog", 0.5]),
    "a score of text": changed(scores={"error": ["0.5", None, None]}),
    "a score of one": changed(scores={"error": [0.5]}),
    "an unknown field": changed(more=1),
    "objects as values": with_array(dtype="|O"),
    "a structured type": with_array(dtype=[["a", "<f4"]]),
    "a shape of text": with_array(shape="11"),
    "a negative shape": with_array(shape=[-1]),
    "an absurd shape": with_array(shape=[10**12]),
    "an absurd product": with_array(shape=[10**9, 10**9]),
    "a shape too large for the content": with_array(shape=[12, 2]),
    "a shape too small for the content": with_array(shape=[5]),
    "another number of images": with_array(shape=[12]),
    "content that is no text": with_array(zlib_b85=5),
    "content that is not packed": with_array(zlib_b85="00000"),
    "content that expands": with_array(zlib_b85=bomb()),
    "a model without a name": {"model": {"sha256": "", "preprocessing": "", "facts": {}}},
    "a model with a number": {"model": {"name": 1, "sha256": "", "preprocessing": "", "facts": {}}},
    "an absurd kernel size": {
        "model": {"name": "", "sha256": "", "preprocessing": "", "facts": {"k": 10**30}}
    },
    "a plan of numbers": {"plan": [1]},
    "a hole without a reason": {"hole": {"cell": list(FOG), "reason": None}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_line_of_wrong_types_is_named_though_its_sum_fits(path, tmp_path, wrong):
    file = tmp_path / "r"
    line = encode_line(WRONG[wrong]) if isinstance(WRONG[wrong], dict) else "[1]\n"
    file.write_text(path.read_text() + line)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="line 5, is damaged"):
            load_results(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_results_that_lack_what_their_scores_need_are_named_with_the_file(tmp_path):
    """The example has no bytes that say which images a cell shows."""
    file = written(tmp_path / "r", results=[result(), result(Cell("imagenet_c", "fog", 4))])
    with pytest.raises(ValueError, match=f"{file}: the results of a do not fit together"):
        load_summaries(file)


def test_deep_nesting_is_damage(path, tmp_path):
    file = tmp_path / "r"
    file.write_text(path.read_text() + '{"plan": ' + "[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="line 5, is damaged"):
        load_results(file)


def test_what_is_right_is_read():
    assert decode_line(changed()).cell == FOG


def test_a_second_sweep_on_a_file_is_refused_until_the_first_has_ended(tmp_path):
    with ResultsFile(tmp_path / "r", SETTINGS):
        with pytest.raises(InUse, match=f"Another sweep appends to {tmp_path / 'r'}"):
            ResultsFile(tmp_path / "r", SETTINGS)
        assert load_results(tmp_path / "r").cells == {}
    ResultsFile(tmp_path / "r", SETTINGS).close()


def test_a_sweep_that_was_killed_leaves_no_lock(tmp_path):
    program = (
        "import sys, os, signal\n"
        "from lska_jax.robustness.sweep.results_file import ResultsFile\n"
        "file = ResultsFile(sys.argv[1], {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "r")])
    assert done.returncode == -9
    ResultsFile(tmp_path / "r", {}).close()


def test_a_file_of_other_settings_is_given_back(path):
    with pytest.raises(ValueError, match="other settings"):
        ResultsFile(path, {})
    ResultsFile(path, SETTINGS).close()


def test_a_file_that_goes_away_ends_the_sweep(tmp_path):
    with ResultsFile(tmp_path / "r", SETTINGS) as file:
        (tmp_path / "r").rename(tmp_path / "moved")
        with pytest.raises(ResultsNotWritten, match="was deleted, moved or replaced"):
            file.add_result(result())


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    """The kernel's file of no room."""
    monkeypatch.setattr(results_file, "is_in_place", lambda file, path: True)
    with ResultsFile(tmp_path / "r", SETTINGS) as file:
        file._file.close()
        file._file = Path("/dev/full").open("w")  # noqa: SIM115
        with pytest.raises(ResultsNotWritten, match="No space left.*run the same command again"):
            file.add_result(result())
