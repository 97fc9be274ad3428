"""What counts as an image: the same in a folder, in a tar of it, and for predictions."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lska_jax.data.augment import EvalTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import BrokenImages, eval_batches
from lska_jax.data.notes import forget_notes
from lska_jax.data.opening import open_source
from lska_jax.data.plain_file import MAX_FILE_BYTES, read_plain_file
from lska_jax.data.sources import BrokenImage, Source
from lska_jax.tasks.predict import find_images

UNDECODABLE = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def notes_are_said_anew():
    forget_notes()


def fill(root: Path) -> Path:
    """Write a training split in all the ways that people's folders have."""
    for name in (
        *("train/bee/a.png", "train/bee/deep/b.png", "train/ant/c.png", "pool/d.png"),
        *("train/bee/.hidden.png", "train/bee/.ipynb_checkpoints/a.png", "train/.git/e.png"),
        *("train/bee/@eaDir/f.png", "train/lost+found/g.png", "__MACOSX/train/bee/h.png"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    os.link(root / "train/bee/a.png", root / "train/bee/hard.png")
    (root / "train/bee/soft.png").symlink_to("a.png")
    (root / "train/bee/far.png").symlink_to("../../pool/d.png")
    (root / "train/bee/round.png").symlink_to("soft.png")
    (root / "train/bee/folder").symlink_to("../../pool")
    (root / "train/bee/loop").symlink_to("..")
    (root / "train/cow").symlink_to("ant")
    return root


def tar_of(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def listing(source: Source) -> list[tuple[str, bytes, int]]:
    return [
        (source.path(n).partition("train/")[2], source[n].image, source[n].label)
        for n in range(len(source))
    ]


def test_hidden_files_and_links_are_alike_in_a_folder_and_in_a_tar(tmp_path):
    folder = fill(tmp_path / "data")
    sources = [open_source(f"folder:{p}", split="train") for p in (folder, tar_of(folder))]
    assert sources[0].class_names == sources[1].class_names == ("ant", "bee", "cow")
    assert listing(sources[0]) == listing(sources[1])
    assert [name for name, _, _ in listing(sources[0])] == [
        *("ant/c.png", "bee/a.png", "bee/deep/b.png", "bee/far.png", "bee/folder/d.png"),
        *("bee/hard.png", "bee/round.png", "bee/soft.png", "cow/c.png"),
    ]


def test_predictions_see_what_training_sees(tmp_path):
    folder = fill(tmp_path / "data")
    source = open_source(f"folder:{folder}", split="train")
    below = [str(path) for path in find_images([folder / "train" / "bee"])]
    assert below == [source.path(n) for n in range(len(source)) if source[n].label == 1]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "nowhere.png", "b.png"])
def test_a_link_in_a_tar_that_leads_nowhere_or_out_is_left_out_and_said(target, tmp_path, capsys):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("cat/a.png")
        archive.addfile(member, io.BytesIO())
        link = tarfile.TarInfo("cat/b.png")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
    source = open_source(f"folder:{tmp_path / 'a.tar'}", split="train")
    assert [Path(source.path(n)).name for n in range(len(source))] == ["a.png"]
    assert "1 of the members" in (said := capsys.readouterr().err) and "cat/b.png" in said


def test_links_that_multiply_in_a_tar_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("lska_jax.data.tar_tree._MAX_LINKED_NAMES", 50)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for n in range(20):
            archive.addfile(tarfile.TarInfo(f"cat/{n}.png"), io.BytesIO())
        for n in range(20):
            link = tarfile.TarInfo(f"cat{n}")
            link.type, link.linkname = tarfile.SYMTYPE, "cat"
            archive.addfile(link)
    with pytest.raises(ValueError, match=r"a.tar cannot be read: its links stand for more than 50"):
        open_source(f"folder:{tmp_path / 'a.tar'}", split="train")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_pipes_and_dead_links_are_left_out_and_said(kind, tmp_path, capsys):
    folder = tmp_path / "data" / "cat"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    os.mkfifo(folder / "pipe.png")
    (folder / "dead.png").symlink_to("nowhere")
    place = tmp_path / "data" if kind == "folder" else tar_of(tmp_path / "data")
    source = open_source(f"folder:{place}", split="train")
    assert len(source) == 1
    said = capsys.readouterr().err
    assert "Note: 2 of the" in said and ("pipe.png" in said or "dead.png" in said)


def test_a_pipe_that_took_the_place_of_an_image_is_broken_and_waits_for_nobody(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"a")
    source = open_source(f"folder:{tmp_path}", split="train")
    (tmp_path / "cat" / "a.png").unlink()
    os.mkfifo(tmp_path / "cat" / "a.png")
    with pytest.raises(BrokenImage, match="no plain file"):
        source[0]
    with pytest.raises(BrokenImage, match="no plain file"):
        read_plain_file("/dev/zero")


def test_a_file_larger_than_any_image_is_broken(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    os.truncate(path, MAX_FILE_BYTES + 1)
    with pytest.raises(BrokenImage, match=f"limit of {MAX_FILE_BYTES:,}"):
        read_plain_file(path)


def test_a_place_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "data.tar")
    with pytest.raises(ValueError, match="data.tar is neither a folder nor a plain file"):
        open_source(f"folder:{tmp_path / 'data.tar'}", split="train")


# --- names that are no text


def test_names_that_are_no_text_are_escaped_wherever_they_are_shown(tmp_path, capsys):
    folder = tmp_path / UNDECODABLE / "train" / UNDECODABLE
    folder.mkdir(parents=True)
    (folder / f"{UNDECODABLE}.png").write_bytes(b"a")
    (folder / f"{UNDECODABLE}2.png").symlink_to("nowhere")
    source = open_source(f"folder:{folder.parents[1]}", split="TRAIN")
    shown = [source.name, source.path(0), *source.class_names, capsys.readouterr().err]
    assert all(r"caf\xe9" in text for text in shown)
    "".join(shown).encode()
    assert source[0].image == b"a"


def test_errors_about_names_that_are_no_text_can_be_written(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / f"{split}{UNDECODABLE}").mkdir(parents=True)
        (tmp_path / split / f"{split}{UNDECODABLE}" / "a.png").touch()
    for split in ("val", "other"):
        with pytest.raises(ValueError, match="train") as caught:
            open_source(f"folder:{tmp_path}", split=split)
        str(caught.value).encode()


def test_a_line_feed_in_a_name_does_not_break_a_list(tmp_path):
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "a\nb" / "c.png").write_bytes(b"a")
    source = open_source(f"folder:{tmp_path}", split="train")
    assert source.class_names == (r"a\x0ab",) and source[0].image == b"a"


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_list_of_broken_images_can_be_written(kind, tmp_path):
    folder = tmp_path / "data" / "cat"
    folder.mkdir(parents=True)
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG")
    (folder / "a.png").write_bytes(file.getvalue())
    (folder / f"{UNDECODABLE}.png").write_bytes(b"no image")
    place = tmp_path / "data" if kind == "folder" else tar_of(tmp_path / "data")
    source = open_source(f"folder:{place}", split="train")
    read, said = LabelledImages(EvalTransform(image_size=4)), []
    broken = BrokenImages(source, read, report=said.append)
    for batch in eval_batches(source, read, global_batch_size=2):
        broken.note(batch)
    assert r"caf\xe9.png (not an image file)" in broken.listing()
    "".join([*said, broken.listing()]).encode()
