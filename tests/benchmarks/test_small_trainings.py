"""Benchmarks of small trainings: rows that are kept, intervals, and the sets that they draw."""

import csv

import numpy as np
import pytest
from PIL import Image

from benchmarks import fine_tuning, small_trainings, stage_choices, starts
from benchmarks.fine_tuning_sets import write_far
from benchmarks.small_trainings import Rows, difference_of, interval_of


def test_a_row_that_is_there_is_not_measured_again():
    written = []
    rows = Rows([{"way": "a", "seed": 0, "top1": 0.5}], keys=("way", "seed"), write=written.append)
    assert rows.add({"way": "a", "seed": 0}, lambda: pytest.fail("measured"))["top1"] == 0.5
    assert rows.add({"way": "a", "seed": 1}, lambda: {"top1": 0.7})["top1"] == 0.7
    assert [len(all_rows) for all_rows in written] == [2]
    assert rows.has({"way": "a", "seed": 1}) and not rows.has({"way": "b", "seed": 1})


def test_intervals_are_students_and_differences_are_taken_seed_by_seed():
    # 2, 4, 6: standard deviation 2, and 4.303 of it over the root of 3.
    found = interval_of([2.0, 4.0, 6.0])
    assert found.mean == 4.0 and found.half_width == pytest.approx(4.303 * 2 / 3**0.5)
    rows = [{"seed": seed, "top1": 0.5 + 0.1 * seed} for seed in range(3)]
    others = [{"seed": seed, "top1": 0.4 + 0.1 * seed} for seed in (2, 1, 0)]
    difference = difference_of(rows, others)
    assert difference.percent(is_difference=True) == "+10.0 ± 0.0"
    assert interval_of([0.25]).percent() == "25.0"


def test_tables_show_what_there_is():
    row = {"task": "far", "epochs": 10, "seconds": 30.0, "core_seconds": 50.0}
    ways = ("fine-tuned", "from scratch")
    rows = [
        {**row, "way": way, "seed": seed, "top1": 0.9 - 0.2 * ways.index(way)}
        for way in ways
        for seed in (0, 1, 2)
    ]
    rows.append({"task": "far", "way": "fine-tuned", "seed": 0, "step": "predict"} | row)
    made = fine_tuning.tables({"rows": rows})
    assert (
        "| from scratch | 10 | 70.0 ± 0.0 | 70.0, 70.0, 70.0 | +20.0 ± 0.0 |"
        in (made["fine_tuning"])
    )
    assert "| far | predict | 30 | 50 |" in made["fine_tuning waiting"]
    rows = [
        {"way": way, "seed": 0, "top1": 0.5, "core_seconds": 9.0}
        for way in ("labels alone", "from masked images")
    ]
    assert (
        "| from masked images | 50.0 | 50.0 | +0.0 | 9 |" in starts.tables({"rows": rows})["starts"]
    )


def test_a_choice_of_stages_is_read():
    read = stage_choices.fields_of_choice
    assert read("23") == {"k": 23, "attention": "lska"}
    assert read("7,11") == {"k": (7, 11), "attention": "lska"}
    assert read("lka,lska:7,11") == {"k": (7, 11), "attention": ("lka", "lska")}
    with pytest.raises(ValueError, match="'7,x' is not understood"):
        read("7,x")


def test_the_far_set_is_drawn_by_its_seed_and_tested_on_the_same_images(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("again", 0)):
        write_far(tmp_path / name, seed=seed, each=2, held_out=1)

    def read(name: str, place: str) -> np.ndarray:
        with Image.open(tmp_path / name / place) as image:
            return np.asarray(image)

    train, test = "train/digit_8/0001.png", "test/digit_8/0000.png"
    assert read("a", train).shape == (32, 32, 3)
    np.testing.assert_array_equal(read("a", train), read("again", train))
    assert (read("a", train) != read("b", train)).any()
    np.testing.assert_array_equal(read("a", test), read("b", test))


def test_ten_labelled_digits_of_each_class_are_drawn(tmp_path):
    starts.write_few(tmp_path, seed=0)
    with (tmp_path / "few.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = [row["label"] for row in rows if row["split"] == "train"]
    assert [labels.count(str(digit)) for digit in range(10)] == [10] * 10
    assert sum(row["split"] == "test" for row in rows) == 355


@pytest.mark.slow
@pytest.mark.parametrize("module", [stage_choices, starts])
def test_a_quick_run_writes_rows_and_prints_a_table(module, tmp_path, capsys):
    module.main(["--quick", "--out", str(tmp_path)])
    assert (tmp_path / f"{module.NAME}.json").is_file()
    assert "| --- |" in capsys.readouterr().out


def test_a_command_that_fails_is_an_error_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr(small_trainings.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="lska-jax train --data x"):
        small_trainings.run_command("train", "--data", "x", cwd=tmp_path)
