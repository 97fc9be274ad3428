"""A results file of format version 1, kept from an earlier sweep: read, reported and resumed."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from known_models import PREPARED, reader, write_pictures

from lska_jax.robustness import Classifier, load_summaries, wrap_function
from lska_jax.robustness.report import terminal_table
from lska_jax.robustness.sets.label_sets import imagenet_wnids, subset_classes
from lska_jax.robustness.sweep.plan import SweepOptions
from lska_jax.robustness.sweep.run import sweep

KEPT = Path(__file__).with_name("results_version_1")
SUITE = (
    *("imagenet", "imagenet_real", "imagenet_c/contrast", "imagenet_c_bar/sparkles"),
    *("imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_v2", "imagenet_o"),
    *("imagenet_p/tilt", "cue_conflict"),
)


def test_every_score_and_hole_is_that_of_the_sweep_that_wrote_it():
    (summary,) = load_summaries(KEPT / "results.jsonl")
    found = [
        [key, *one.score, one.provenance, one.num_images, one.note]
        for key, one in summary.scores.items()
    ]
    found += [[str(hole.cell), hole.reason] for hole in summary.holes]
    lines = (KEPT / "scores.jsonl").read_text().splitlines()
    assert found == [json.loads(line) for line in lines]


def test_the_table_is_that_of_the_sweep_that_wrote_it():
    summaries = load_summaries(KEPT / "results.jsonl")
    assert terminal_table(summaries) + "\n" == (KEPT / "table.txt").read_text()


def known_model() -> Classifier:
    model = wrap_function(reader(1000), name="known", preprocessing=PREPARED)
    return dataclasses.replace(model, stamp=dataclasses.replace(model.stamp, sha256="0" * 64))


def test_a_sweep_goes_on_with_it_and_fills_its_hole(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))
    shutil.copy(KEPT / "results.jsonl", tmp_path)
    first = int(subset_classes("imagenet_r")[0])
    write_pictures(tmp_path / "imagenet-r", {imagenet_wnids()[first]: [first]})
    options = SweepOptions(
        suite=SUITE, data_root=str(tmp_path), generate=True, batch_size=8, num_workers=0
    )
    (summary,) = sweep([known_model()], options, out=tmp_path)
    before = (KEPT / "results.jsonl").read_bytes()
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    assert "19 of 21 cells are measured already" in capsys.readouterr().out
    assert summary.scores["imagenet_r/top1_200"].score.value == 1
    assert [str(hole.cell) for hole in summary.holes] == ["imagenet_sketch"]


def test_another_model_is_not_mixed_in(tmp_path):
    shutil.copy(KEPT / "results.jsonl", tmp_path)
    model = known_model()
    other = dataclasses.replace(model, stamp=dataclasses.replace(model.stamp, sha256="f" * 64))
    options = SweepOptions(suite=SUITE, generate=True)
    with pytest.raises(ValueError, match="another model named 'known'"):
        sweep([other], options, out=tmp_path)
