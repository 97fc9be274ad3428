"""Goals and what stored results say of them."""

import pytest

from benchmarks import claims, engines, goals, model, ops, results
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
    assert Goal("", "", 15, 30, found).verdict() == verdict


def test_at_most_turns_the_comparison():
    assert Goal("", "", 1.15, 1.05, [1.05], is_at_most=True).verdict() == "aim reached"
    assert Goal("", "", 1.15, 1.05, [1.1], is_at_most=True).verdict() == "reached"
    assert Goal("", "", 1.15, 1.05, [1.2], is_at_most=True).verdict() == "missed at 1 of 1"


def test_without_results_every_goal_reads_not_yet_run(tmp_path):
    lines = goals.tables(tmp_path)[goals.NAME].splitlines()[2:]
    assert len(lines) == 19
    assert all(line.endswith(f"|  | {results.NOT_YET_RUN} |") for line in lines)
    assert goals.tables(tmp_path)[goals.VERDICTS] == f"Of 19 goals: {results.NOT_YET_RUN} 19."


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
    found = [line.split("|")[5].strip() for line in lines]
    assert found == ["15.00", "15.00", "1.50", "1.25", "2.00", "10.00", "1.10", *[""] * 12]


def test_goals_over_engines_take_the_faster_pytorch_and_the_processor_with_wide_vectors(tmp_path):
    seconds = {engines.JAX: 1.0, engines.EAGER: 3.0, engines.COMPILED: 2.0, engines.RUNTIME: 0.8}
    seconds |= {engines.OPENVINO: 1.2, engines.JAX_BFLOAT16: 0.5}
    rows = [
        {**engines.Case(mode, batch_size, 23)._asdict(), "contender": name, "seconds": value}
        for mode, batch_size in (("inference", 1), ("inference", 8), ("train", 8), ("train", 32))
        for name, value in seconds.items()
        if mode == "inference" or name in engines.TRAIN
    ]
    write(tmp_path, engines.WIDE, rows)
    lines = goals.tables(tmp_path)[goals.NAME].splitlines()[2:]
    found = {cells[1].strip(): cells[5].strip() for cells in (line.split("|") for line in lines)}
    assert [ratio for ratio in found.values() if ratio] == [
        *("0.80", "1.20", "1.20"),
        *("2.00", "2.00", "2.00"),
    ]
    assert all(("AVX-512" in line) == bool(line.split("|")[5].strip()) for line in lines)
    line, *_ = claims.engine_table(tmp_path).splitlines()[2:]
    assert line == "| AVX-512 | inference | 1 | 1,000.0 | 2.00 | 0.80 | 1.20 |"


@pytest.mark.parametrize(
    ("processor", "vectors"), [("AMD EPYC", "AVX2"), ("AMD EPYC with AVX-512", "AVX-512")]
)
def test_goals_name_the_processor_that_results_are_of(tmp_path, processor, vectors):
    write(tmp_path, model.NAME, [], processor=processor)
    lines = goals.tables(tmp_path)[goals.NAME].splitlines()
    (line,) = [line for line in lines if "over all-lax" in line and "TPU" not in line]
    assert line.split("|")[2].strip() == vectors


def write(folder, name, rows, **conditions):
    conditions = {**results.describe_conditions(), **conditions}
    results.write_result(folder, name, conditions=conditions, rows=rows, is_quick=False)
