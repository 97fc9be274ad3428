"""Scores against k: which ones, of which models, in figures and in numbers."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from summaries import full_summary, stamped, summary

from lska_jax.commands.report import main
from lska_jax.robustness.cells import Cell, Summary
from lska_jax.robustness.report.kernel_size_picture import means_by_k, with_kernel_size
from lska_jax.robustness.report.names import Key
from lska_jax.robustness.report.shape_against_k import panel_keys, shape_against_k


def model(name: str, k: object, attention: str = "lska", accuracy: float = 0.7):
    return full_summary(name, accuracy, k=k, attention=attention)


def rows_of(folder: Path) -> list[dict[str, str]]:
    text = (folder / "shape_against_k.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_the_figure_is_there_and_not_blank(tmp_path):
    models = [model("a", 7), model("b", 23, accuracy=0.72), model("c", 23, "lka", accuracy=0.71)]
    path = shape_against_k(models, tmp_path / "new")
    assert path == tmp_path / "new" / "shape_against_k.png"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1200
    assert (pixels == 255).all(axis=-1).mean() < 0.99
    # The colours of both attentions.
    for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):
        assert (pixels == colour).all(axis=-1).any()


def test_the_numbers_of_the_figure_stand_beside_it(tmp_path):
    shape_against_k([model("a", 7)], tmp_path)
    shape, mce, accuracy = rows_of(tmp_path)
    assert shape == {
        "model": "a",
        "sha256": "ab" * 32,
        "attention": "lska",
        "k": "7",
        "key": "cue_conflict/shape_bias",
        "value": shape["value"],
        "low": shape["low"],
        "high": shape["high"],
        "provenance": "official",
        "num_images": "50000",
        "note": "",
        "state": "measured",
    }
    # Float64 sums of two decimals.
    assert float(shape["value"]) == pytest.approx(0.3, abs=1e-12)
    assert float(shape["low"]) == pytest.approx(0.29, abs=1e-12)
    assert (mce["key"], accuracy["key"]) == ("imagenet_c/mce_15", "imagenet/top1")


def test_where_mce_does_not_apply_the_mean_error_stands_in_its_place():
    scores = {
        "cifar10/top1": 0.9,
        "cifar10_c/mean_error": 0.3,
        "cue_conflict/shape_bias": 0.3,
        "imagenet/top1": 0.1,
    }
    assert panel_keys([summary("a", scores, k=7)]) == (
        Key("cue_conflict", "shape_bias"),
        Key("cifar10_c", "mean_error"),
        Key("cifar10", "top1"),
    )


def test_several_models_of_one_k_and_attention_have_a_mean():
    models = [
        model("a", 7, accuracy=0.6),
        model("b", 7, accuracy=0.8),
        model("c", 7, "lka", accuracy=0.9),
        model("d", 23, accuracy=0.75),
    ]
    means = means_by_k(with_kernel_size(models), Key("imagenet", "top1"), "official")
    # Float64 sums of a few decimals.
    assert means == pytest.approx(
        {("LSKA", 7): 0.7, ("LKA", 7): 0.9, ("LSKA", 23): 0.75}, abs=1e-12
    )


def test_models_of_several_sizes_have_lines_of_their_own():
    # LSKA-T and LSKA-S: k moves the parameters a little, the size much.
    sizes = {("t7", 7): 4_009_800, ("t53", 53): 4_061_000, ("s7", 7): 13_700_520}
    models = [
        full_summary(name, 0.7, k=k, attention="lska", parameters=parameters)
        for (name, k), parameters in sizes.items()
    ]
    lines = {model.summary.model.name: model.line for model in with_kernel_size(models)}
    assert lines == {"t7": "LSKA, 4.0 M", "t53": "LSKA, 4.0 M", "s7": "LSKA, 13.7 M"}
    assert {model.line for model in with_kernel_size(models[:2])} == {"LSKA"}


def test_a_mean_holds_numbers_of_one_origin_only():
    def of(name: str, value: float, provenance: str) -> Summary:
        scores = {"imagenet_c/mce_15": stamped(value, provenance=provenance)}
        return summary(name, scores, k=7, attention="lska")

    summaries = [of("a", 0.6, "official"), of("b", 0.2, "generated"), of("c", 0.8, "official")]
    models = with_kernel_size(summaries)
    key = Key("imagenet_c", "mce_15")
    assert means_by_k(models, key, "official") == pytest.approx({("LSKA", 7): 0.7}, abs=1e-12)
    assert means_by_k(models, key, "generated") == {("LSKA", 7): 0.2}


def test_a_model_without_the_score_is_a_gap(tmp_path):
    without = summary(
        "b",
        {"imagenet/top1": 0.7},
        holes={Cell("cue_conflict"): "not there"},
        k=11,
        attention="lska",
    )
    shape_against_k([model("a", 7), without, model("c", 23)], tmp_path)
    states = {(row["model"], row["key"]): row["state"] for row in rows_of(tmp_path)}
    assert states["b", "cue_conflict/shape_bias"] == "missing"
    assert states["b", "imagenet_c/mce_15"] == "not measured"
    assert states["b", "imagenet/top1"] == "measured"


def test_nothing_but_gaps_can_be_drawn(tmp_path):
    shape_against_k([summary("a", {}, k=7)], tmp_path)
    assert [row["state"] for row in rows_of(tmp_path)] == ["not measured"] * 3


def test_models_without_k_are_left_out(tmp_path):
    shape_against_k([model("a", 7), full_summary("vit", 0.8)], tmp_path)
    assert {row["model"] for row in rows_of(tmp_path)} == {"a"}


@pytest.mark.parametrize("k", [None, "large", 7.5, -7, float("nan"), float("inf")])
def test_without_any_usable_k_there_is_nothing_to_draw(tmp_path, k):
    with pytest.raises(ValueError, match="No model says its kernel size k"):
        shape_against_k([model("a", k)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_k_may_come_as_text_or_float(tmp_path):
    shape_against_k([model("a", "7"), model("b", 23.0)], tmp_path)
    assert {row["k"] for row in rows_of(tmp_path)} == {"7", "23"}


def test_hostile_names_are_drawn_and_no_formula_in_the_csv(tmp_path):
    shape_against_k([model("=$x_1^{", 7, "$lska_{"), full_summary("_$y", 0.8)], tmp_path)
    assert {row["model"] for row in rows_of(tmp_path)} == {"'=$x_1^{"}


def test_the_command_draws_all_files_in_one_figure(tmp_path, capsys, monkeypatch):
    by_path = {Path("a"): [model("a", 7)], Path("b"): [model("b", 23)]}
    monkeypatch.setattr("lska_jax.robustness.sweep.summary.load_summaries", by_path.__getitem__)
    monkeypatch.chdir(tmp_path)
    for path in by_path:
        path.touch()
    assert main(["a", "b", "--out", str(tmp_path), "--against_k"]) == 0
    assert f"Wrote {tmp_path / 'shape_against_k.png'}." in capsys.readouterr().out
    assert {row["model"] for row in rows_of(tmp_path)} == {"a", "b"}
