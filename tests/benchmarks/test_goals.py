"""Goals and what stored results say of them."""

import pytest

from benchmarks import goals, model, ops, results
from benchmarks.goals import Goal


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([30.0, 31.0], "aim reached"),
        ([15.0, 31.0], "reached"),
        ([14.9, 31.0, 2.0], "missed at 2 of 3"),
        ([], results.NOT_YET_RUN),
    ],
)
def test_all_maps_have_to_reach_a_goal(found, verdict):
    assert Goal("", 15, 30, found).verdict() == verdict


def test_at_most_turns_the_comparison():
    assert Goal("", 1.15, 1.05, [1.05], is_at_most=True).verdict() == "aim reached"
    assert Goal("", 1.15, 1.05, [1.1], is_at_most=True).verdict() == "reached"
    assert Goal("", 1.15, 1.05, [1.2], is_at_most=True).verdict() == "missed at 1 of 1"


def test_without_results_every_goal_reads_not_yet_run(tmp_path):
    lines = goals.tables(tmp_path)[goals.NAME].splitlines()[2:]
    assert len(lines) == 13
    assert all(line.endswith(f"|  | {results.NOT_YET_RUN} |") for line in lines)


def test_ratios_are_over_the_best_of_pytorch_and_by_what_auto_takes(tmp_path):
    seconds = {"xla": 30.0, "shift": 1.0, "auto": 2.0, "torch contiguous": 5.0}
    seconds["torch channels_last"] = 3.0
    case = {"group": ops.CASCADE, "model": "tiny", "k": 23, "stage": 1}
    rows = [
        {**case, "mode": mode, "contender": name, "seconds": value}
        for mode in ops.MODES
        for name, value in seconds.items()
    ]
    write(tmp_path, ops.NAME, rows)
    case = {"size": "tiny", "mode": "train", "batch_size": 8}
    rows = [
        {**case, "k": k, "contender": model.OURS, "seconds": value}
        for k, value in ((7, 1.0), (23, 1.05), (53, 1.1))
    ]
    rows += [{**case, "k": 23, "contender": "torch channels_last", "seconds": 2.1}]
    rows += [{**case, "k": 23, "contender": model.ALL_LAX, "seconds": 10.5}]
    rows += [{**case, "mode": "inference", "k": 23, "contender": model.OURS, "seconds": 1.0}]
    rows += [{**rows[-1], "contender": "torch contiguous", "seconds": 1.5}]
    rows += [{**rows[-1], "contender": "torch folded contiguous", "seconds": 0.5}]
    rows += [{**rows[-1], "contender": model.FOLDED, "seconds": 0.4}]
    write(tmp_path, model.NAME, rows)
    lines = goals.tables(tmp_path)[goals.NAME].splitlines()[2:]
    found = [line.split("|")[4].strip() for line in lines]
    assert found == ["15.00", "15.00", "1.50", "1.25", "2.00", "10.00", "1.10", *[""] * 6]


def write(folder, name, rows):
    results.write_result(
        folder, name, conditions=results.describe_conditions(), rows=rows, is_quick=False
    )
