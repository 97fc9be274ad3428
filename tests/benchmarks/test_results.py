"""Conditions, JSON, and the tables that are made from it."""

import json
import re

import pytest

from benchmarks import (
    claims,
    cost_tables,
    families,
    first_answer,
    formulation_tables,
    results,
    tables,
)
from benchmarks.cost_cells import ATTENTION, NETWORK
from lska_jax.running.huge_pages import VARIABLE

ROW = {
    "group": "FFN 3x3",
    "model": "tiny",
    "stage": 1,
    "shape": [8, 56, 56, 256],
    "k": 0,
    "out_channels": 0,
    "mode": "forward",
    "quartiles": [0.001, 0.002],
    "repetitions": 5,
}
ROWS = [
    {**ROW, "contender": "xla", "seconds": 0.030},
    {**ROW, "contender": "shift", "seconds": 0.002},
    {**ROW, "contender": "torch contiguous", "seconds": 0.005},
    {**ROW, "contender": "torch channels_last", "seconds": 0.003},
]


def write(folder, *, is_quick: bool = False):
    conditions = results.describe_conditions()
    return results.write_result(folder, "ops", conditions=conditions, rows=ROWS, is_quick=is_quick)


def test_conditions_say_what_figures_depend_on():
    conditions = results.describe_conditions()
    assert {"date", "cores", "threads", "load_at_start", "versions", VARIABLE} <= set(conditions)
    assert {"python", "jax", "torch"} <= set(conditions["versions"])


def test_what_is_written_is_read(tmp_path):
    written = write(tmp_path)
    assert json.loads((tmp_path / "ops.json").read_text()) == written
    assert results.read_result(tmp_path, "ops") == written
    assert results.read_result(tmp_path, "model") is None


def test_figures_of_a_quick_run_are_refused(tmp_path):
    write(tmp_path, is_quick=True)
    with pytest.raises(ValueError, match="comes from a --quick run"):
        results.read_result(tmp_path, "ops")


def test_rows_of_another_processor_are_not_kept_beside_new_ones(tmp_path):
    conditions = {**results.describe_conditions(), "processor": "another"}
    row = {"model": "swin_tiny_patch4_window7_224", "batch_size": 8}
    results.write_result(tmp_path, families.NAME, conditions=conditions, rows=[row], is_quick=False)
    with pytest.raises(SystemExit, match="are of another, this is .* measure all models"):
        families.main(["--out", str(tmp_path), "--models", "convnext_tiny"])


def test_a_missing_package_ends_with_the_command_that_installs_it():
    with pytest.raises(SystemExit, match=r"needs nonesuch.*pip install '\.\[bench\]'"):
        results.require("nonesuch", "Drawing")


def test_a_table_is_filled_from_the_file_and_the_rest_is_left(tmp_path):
    write(tmp_path)
    text = "before\n<!-- table: ops FFN 3x3 -->\nold\n<!-- end -->\nafter\n"
    filled = tables.filled(text, tmp_path)
    # 30 / 2 over xla, and 3 / 2 over the faster memory format.
    row = "| 8x56x56x256 | forward | 30.00 | 2.00 | 5.00 | 3.00 | 15.0 | 1.50 |"
    assert row in filled.splitlines()
    assert "old" not in filled
    assert filled.startswith("before\n") and filled.endswith("after\n")
    assert tables.filled(filled, tmp_path) == filled


def test_a_table_that_was_not_run_says_so(tmp_path):
    text = "<!-- table: model train -->\n1.23\n<!-- end -->"
    assert "Not yet run." in tables.filled(text, tmp_path)
    assert "1.23" not in tables.filled(text, tmp_path)


def test_a_table_that_no_benchmark_makes_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="No benchmark makes the table 'oops'"):
        tables.filled("<!-- table: oops -->\n<!-- end -->", tmp_path)
    with pytest.raises(ValueError, match="not 'ops oops'"):
        tables.filled("<!-- table: ops oops -->\n<!-- end -->", tmp_path)


def test_a_claim_shows_chosen_rows_and_columns_of_a_full_table(monkeypatch):
    claim = claims.Claim("ops cascade", {"k": ("23",)}, ("auto, ms", "Map"))
    monkeypatch.setitem(claims.CLAIMS, "claim", claim)
    full = "Above.\n\n| Map | k | auto, ms |\n| --- | --- | --- |\n| a | 7 | 1 |\n| b | 23 | 2 |"
    assert claims.excerpt("claim", full).splitlines()[2:] == ["| 2 | b |"]
    with pytest.raises(ValueError, match="no column .'k', 'auto, ms'.; it has Map."):
        claims.excerpt("claim", "| Map |\n| --- |\n| a |")
    with pytest.raises(ValueError, match="no row with {'k': .'23',.} for 'claim'"):
        claims.excerpt("claim", "| Map | k | auto, ms |\n| --- | --- | --- |\n| a | 7 | 1 |")


def test_a_claim_without_a_result_is_not_yet_run(tmp_path):
    filled = tables.filled("<!-- table: claim inference -->\n<!-- end -->", tmp_path)
    assert "Not yet run." in filled


def test_the_documents_hold_the_figures_of_the_files_beside_them():
    shown = set()
    for document in tables.documents():
        text = document.read_text()
        assert tables.filled(text, results.DEFAULT_FOLDER) == text
        shown |= set(re.findall("<!-- table: ([^>]+) -->", text))
    assert shown > set(claims.CLAIMS), "every claim is made somewhere"
    assert {claim.table for claim in claims.CLAIMS.values()} < shown, "and its full table is shown"


def test_a_cell_without_a_figure_says_why():
    counted = {"form": "lka_trivial", "k": 65, "parameters": 10, "flops": 20}
    rows = [
        {**counted, "part": part, "reason": "k=65 compiling took longer than 90 s"}
        for part in (ATTENTION, NETWORK)
    ]
    made = cost_tables.tables(rows, [])
    table = made[f"cost_against_k {NETWORK}"]
    assert "not yet run" in table.splitlines()[2]
    assert table.endswith("- Not run, LKA-trivial: k=65 compiling took longer than 90 s.")


def test_the_table_of_a_gpu_has_a_line_for_every_row_of_the_package():
    rows = json.loads(formulation_tables.TABLE_PATH.read_text())["gpu"]["rows"]
    source, _, *lines = formulation_tables.tables()["formulations gpu"].splitlines()
    assert source.startswith("Measured by python -m benchmarks.tune")
    assert len(lines) == 2 + len(rows)
    forward = {k: f"{1e3 * ms:,.0f}" for k, ms in rows[0]["milliseconds"]["forward"].items()}
    assert lines[2].startswith(
        f"| 1x5 | 1 | 56x56x64 | bfloat16 | {forward['xla']} | {forward['shift']} | "
        f"{forward['toeplitz']} | - |"
    )


def test_the_table_of_cpus_has_both_kinds_of_processors_beside_one_another():
    parts = json.loads(formulation_tables.TABLE_PATH.read_text())
    made = formulation_tables.tables()["formulations cpu"].splitlines()
    assert "AVX2" in made[0] and "AVX-512" in made[1]
    lines = [line for line in made if line[2:3].isdigit()]
    assert len(lines) == len(parts["cpu avx512"]["rows"]) == len(parts["cpu avx2"]["rows"])
    (line,) = [line for line in lines if line.startswith("| 7x7 | 1 | 56x56x96 |")]
    assert line.count("shift, shift, shift") == 2
    assert not any("not measured" in line for line in lines)


def test_the_table_of_first_answers_compares_with_timm():
    row = {"least": 1.0, "largest": 3.0, "cpu_seconds": 2.0, "repetitions": 3}
    made = {"programs": {"first": 4, "second": 0}}
    rows = [
        {**row, "what": first_answer.TIMM, "start": "second", "seconds": 3.0, "programs": None},
        {**row, "what": first_answer.PREDICT, "start": "second", "seconds": 1.5} | made,
    ]  # fmt: skip
    ours, timm = first_answer.tables({"rows": rows})[first_answer.NAME].splitlines()[2:]
    assert ours == "| lska-jax predict | second | 1.50 (1.00 to 3.00) | 2.00 | 0 | 2.00 |"
    assert timm == "| timm, convnext_atto | every | 3.00 (1.00 to 3.00) | 2.00 | none |  |"
