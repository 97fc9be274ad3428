"""A file is written whole or not at all."""

import pytest

from lska_jax.running.whole_file import check_writable, whole_file, write_whole


@pytest.mark.parametrize("content", ["größer\n", b"\x00\xff"])
def test_the_file_has_the_content_and_nothing_else_is_left(tmp_path, content):
    write_whole(tmp_path / "notes.txt", content)
    expected = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "notes.txt").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_that_is_there_is_replaced(tmp_path):
    write_whole(tmp_path / "notes.txt", "old")
    write_whole(tmp_path / "notes.txt", "new")
    assert (tmp_path / "notes.txt").read_text() == "new"


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_whole(tmp_path / "notes.txt", "old")
    with (
        pytest.raises(RuntimeError, match="half way"),
        whole_file(tmp_path / "notes.txt") as beside,
    ):
        beside.write_text("half")
        raise RuntimeError("half way")
    assert (tmp_path / "notes.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_writers_that_need_the_suffix_see_it(tmp_path):
    with whole_file(tmp_path / "weights.npz") as beside:
        assert beside.suffix == ".npz" and beside.parent == tmp_path
        beside.write_bytes(b"")


def test_a_name_that_is_no_text_is_written_escaped(tmp_path):
    write_whole(tmp_path / "notes.txt", "a\udcff.jpg")
    assert (tmp_path / "notes.txt").read_text() == "a\\udcff.jpg"


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    path = tmp_path / "nowhere" / "notes.txt"
    with pytest.raises(FileNotFoundError) as refusal:
        write_whole(path, "text")
    assert refusal.value.filename == str(path)


def test_a_place_that_takes_no_file_is_found_out_before_the_work(tmp_path):
    check_writable(tmp_path / "results.json")
    assert not any(tmp_path.iterdir())
    with pytest.raises(OSError, match="results.json"):
        check_writable(tmp_path / "nowhere" / "results.json")
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
