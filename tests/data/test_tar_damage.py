"""Damaged tars: an error that names the file, soon, and no member lost without a word."""

import io
import random
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lska_jax.data.notes import forget_notes
from lska_jax.data.opening import open_source

BLOCK = 512
SIZE, CHECKSUM, TYPE = slice(124, 136), slice(148, 156), 156
NAMES = ("train/cat/a.jpg", f"train/cat/{'x' * 150}.jpg", "train/dog/b.jpg", "train/dog/c.jpg")


@pytest.fixture(autouse=True)
def at_most_ten_seconds() -> Iterator[None]:
    def give_up(*arguments: object) -> None:
        raise AssertionError("still reading after ten seconds")

    forget_notes()
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_tar(form: int = tarfile.GNU_FORMAT) -> bytearray:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes(700)))
    return bytearray(written.getvalue())


def headers(content: bytearray) -> list[int]:
    places = range(0, len(content) - BLOCK + 1, BLOCK)
    return [place for place in places if content[place + 257 : place + 262] == b"ustar"]


def seal(content: bytearray, place: int) -> None:
    """Write the checksum that a changed header needs."""
    header = content[place : place + BLOCK]
    header[CHECKSUM] = b" " * 8
    content[place + 148 : place + 156] = b"%06o\0 " % sum(header)


def change(content: bytearray, place: int, part: slice | int, value: bytes) -> None:
    start = part if isinstance(part, int) else part.start
    content[place + start : place + start + len(value)] = value
    seal(content, place)


def open_bytes(tmp_path: Path, content: bytes) -> int:
    (tmp_path / "a.tar").write_bytes(content)
    source = open_source(f"folder:{tmp_path / 'a.tar'}", split="train")
    return sum(len(source[n].image) == 700 for n in range(len(source)))


def test_the_tar_is_read_before_it_is_damaged(tmp_path):
    assert open_bytes(tmp_path, make_tar()) == 4


@pytest.mark.parametrize("member", [1, 2, 3, 4])
def test_a_damaged_header_in_the_middle_is_no_end(member, tmp_path):
    content = make_tar()
    content[headers(content)[member] + 148] ^= 0x40
    with pytest.raises(ValueError, match=r"a\.tar cannot be read .* header"):
        open_bytes(tmp_path, content)


def test_tars_that_were_joined_are_said_to_be_read_in_part(tmp_path, capsys):
    assert open_bytes(tmp_path, make_tar()) == 4
    assert capsys.readouterr().err == ""
    assert open_bytes(tmp_path, make_tar() + make_tar()) == 4
    assert "a.tar goes on behind its end" in capsys.readouterr().err


@pytest.mark.parametrize(
    "size",
    [b"\xff" * 10 + b"\xfc\x00", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\xff" + bytes(11)],
    ids=["back", "minus_one", "huge", "far_back"],
)
@pytest.mark.parametrize("member", [0, 1, 4])
def test_a_size_that_leads_back_or_out_is_refused(size, member, tmp_path):
    content = make_tar()
    change(content, headers(content)[member], SIZE, size)
    with pytest.raises(ValueError, match=r"a\.tar (cannot be read|is cut short)"):
        open_bytes(tmp_path, content)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_that_asks_for_too_much_is_refused_unread(kind, tmp_path):
    content = make_tar()
    place = headers(content)[0]
    content[place:place] = bytes(content[place : place + BLOCK])
    change(content, place, TYPE, kind)
    change(content, place, SIZE, b"77777777777\0")
    with pytest.raises(ValueError, match=r"a\.tar cannot be read .*8,589,934,592 bytes"):
        open_bytes(tmp_path, content)


def test_a_chain_of_long_names_is_refused(tmp_path):
    content = make_tar()
    place = headers(content)[1]
    long_name = bytes(content[place : place + 2 * BLOCK])
    content[place:place] = long_name * 3_000
    with pytest.raises(ValueError, match=r"a\.tar cannot be read"):
        open_bytes(tmp_path, content)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(5))
def test_any_damage_to_headers_ends_in_images_or_an_error_that_names_the_file(form, seed, tmp_path):
    draw = random.Random(seed)
    for _ in range(30):
        content = make_tar(form)
        place = draw.choice(headers(content))
        start = draw.choice([0, 100, 124, 136, 148, 156, 157, 257, 345])
        content[place + start : place + start + 4] = draw.randbytes(4)
        if draw.random() < 0.8 and start != 148:
            seal(content, place)
        try:
            open_bytes(tmp_path, content)
        except ValueError as error:
            assert "a.tar" in str(error)
