"""What a resumed run says of the metrics file that it continues."""

import json

import pytest

from lska_jax.training.metric_writers import JsonLines


def lines_of(path, *steps: int) -> None:
    path.write_text("".join(json.dumps({"step": n, "train/loss": 1.0}) + "\n" for n in steps))


def remarks(path, **settings) -> list[str]:
    writer = JsonLines(path, **settings)
    writer.close()
    return writer.remarks


def test_a_whole_file_is_continued_without_a_word(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines_of(path, 5, 10, 15)
    assert remarks(path, start_step=12, open_steps=2) == []


def test_a_missing_file_is_said_at_a_resume(tmp_path):
    (remark,) = remarks(tmp_path / "metrics.jsonl", start_step=12, open_steps=2)
    assert "metrics.jsonl is missing: records up to step 10 are lost" in remark


def test_records_that_are_missing_at_the_end_are_said(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines_of(path, 5)
    (remark,) = remarks(path, start_step=12, open_steps=2)
    assert "lacks the records of training from step 5 to 10" in remark


@pytest.mark.parametrize(
    "damaged", [b"{\n", b"\xff\n", b"5\n", b'{"step": "5"}\n', b"[" * 100_000 + b"\n", b"\n"]
)
def test_damaged_lines_are_said_and_moved_aside(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    lines_of(path, 5, 10)
    whole = path.read_bytes()
    path.write_bytes(damaged + whole)
    (remark,) = remarks(path, start_step=10, open_steps=0)
    assert "has 1 damaged lines; they were moved to" in remark
    assert path.read_bytes() == whole
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == damaged
