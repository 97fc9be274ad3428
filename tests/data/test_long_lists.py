"""Lists in messages: what is shown, and what lies in a file."""

import tempfile
from pathlib import Path

import pytest

from lska_jax.data.long_lists import list_lines


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_few_lines_are_shown_and_no_file_is_written(folder):
    lines = [f"map {n}" for n in range(20)]
    assert list_lines(lines) == "".join(f"\n  {line}" for line in lines)
    assert not list_lines([]) and not any(folder.iterdir())


def test_a_file_holds_every_line_where_there_are_more(folder):
    lines = [f"map {n}" for n in range(21)]
    *shown, last = list_lines(lines).split("\n  ")[1:]
    assert shown == lines[:20]
    (file,) = folder.glob("lska_jax_*/*")
    assert last == f"... and 1 more; all 21 are in {file}"
    assert file.read_text() == "".join(f"{line}\n" for line in lines)


def test_lists_do_not_share_a_file(folder):
    lines = ["map"] * 21
    assert list_lines(lines) != list_lines(lines)
    assert len(list(folder.iterdir())) == 2


def test_a_line_stays_one_line_whatever_a_name_holds(folder):
    lines = ["a\nb", "caf\udce9", *["map"] * 20]
    assert list_lines(lines).startswith("\n  a\\x0ab\n  caf\\xe9\n")
    (file,) = folder.glob("lska_jax_*/*")
    assert file.read_text().splitlines()[:3] == ["a\\x0ab", "caf\\xe9", "map"]


def test_lines_are_shown_where_no_file_can_be_written(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(Path(folder) / "missing"))
    listed = list_lines(["map"] * 21)
    assert listed.count("\n  map") == 20
    assert "... and 1 more; a file with all 21 could not be written" in listed
