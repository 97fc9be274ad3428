"""The digits, folder and tar sources, and the errors of a name that opens nothing."""

import io
import multiprocessing
import operator
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lska_jax.data.opening import inspect_source, open_source
from lska_jax.data.sources import Record, Source, SourceFacts, share_examples

# Stand-ins for encoded images: a source hands out bytes and never looks inside.
FILES = {
    "train/cat/b.jpg": b"cat b",
    "train/cat/a.JPEG": b"cat a",
    "train/cat/deeper/still/c.png": b"cat c",
    "train/cat-big/d.jpg": b"big cat d",
    "train/dog/e.webp": b"dog e",
    "test/cat/f.jpg": b"cat f",
    "test/cat-big/g.jpg": b"big cat g",
    "test/dog/h.jpg": b"dog h",
}
IGNORED = {
    "train/cat/.hidden.jpg": b"-",
    "train/cat/notes.txt": b"-",
    "train/.git/x.jpg": b"-",
    "train/loose.jpg": b"-",
    "README.md": b"-",
}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes], *, prefix: str = "", mode: str = "w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read_all(source: Source) -> list[Record]:
    return [source[index] for index in range(len(source))]


def open_kind(kind: str, tmp_path: Path, files: dict[str, bytes], *, split: str) -> Source:
    if kind == "folder":
        return open_source(f"folder:{write_folder(tmp_path / 'data', files)}", split=split)
    return open_source(f"folder:{write_tar(tmp_path / 'data.tar', files)}", split=split)


both_kinds = pytest.mark.parametrize("kind", ["folder", "tar"])


# --- digits


def test_digits_are_scaled_to_the_full_grey_range():
    source = open_source("digits", split="all")
    images = np.stack([record.image for record in read_all(source)])
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    # 16 levels above black: 255 / 16 = 15.94 each, rounded.
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}


@pytest.mark.slow
def test_digits_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits

    source, theirs = open_source("digits", split="all"), load_digits()
    expected = np.rint(theirs.images * (255 / 16)).astype(np.uint8)[..., None]
    np.testing.assert_array_equal(np.stack([record.image for record in read_all(source)]), expected)
    assert [record.label for record in read_all(source)] == theirs.target.tolist()


def test_digits_train_and_test_share_no_example_and_miss_none():
    train = open_source("digits", split="train")
    test = open_source("digits", split="test")
    train_paths = {train.path(index) for index in range(len(train))}
    test_paths = {test.path(index) for index in range(len(test))}
    assert not train_paths & test_paths
    assert train_paths | test_paths == {f"digits#{index}" for index in range(1797)}


def test_digits_know_that_all_of_them_hold_the_test_split():
    train, test, every = (open_source("digits", split=name) for name in ("train", "test", "all"))
    assert share_examples(every, test) and not share_examples(train, test)


def test_digits_hold_out_a_fifth_of_each_class():
    held_out = np.bincount([r.label for r in read_all(open_source("digits", split="test"))])
    in_total = np.bincount([r.label for r in read_all(open_source("digits", split="all"))])
    np.testing.assert_array_equal(held_out, in_total // 5)


def test_digits_paths_lead_to_the_same_image():
    test = open_source("digits", split="test")
    everything = open_source("digits", split="all")
    position = int(test.path(17).removeprefix("digits#"))
    np.testing.assert_array_equal(test[17].image, everything[position].image)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_the_digits_facts_are_those_of_the_data(split):
    source = open_source("digits", split=split)
    facts = SourceFacts(len(source.class_names), len(source))
    assert inspect_source("digits", split=split) == facts


def test_an_unknown_digits_split_lists_the_splits():
    with pytest.raises(ValueError, match="no split 'validation'.*train, test, all"):
        open_source("digits", split="validation")


# --- folders and tars


@both_kinds
def test_classes_are_sorted_folder_names_and_files_are_sorted_within(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES | IGNORED, split="train")
    assert source.class_names == ("cat", "cat-big", "dog")
    assert read_all(source) == [
        Record(b"cat a", 0),
        Record(b"cat b", 0),
        Record(b"cat c", 0),
        Record(b"big cat d", 1),
        Record(b"dog e", 2),
    ]


@both_kinds
def test_a_split_reads_its_own_folder_only(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES, split="test")
    assert [record.image for record in read_all(source)] == [b"cat f", b"big cat g", b"dog h"]


@both_kinds
def test_class_folders_without_split_folders_serve_every_split(kind, tmp_path):
    files = {"cat/a.jpg": b"a", "dog/b.jpg": b"b"}
    source = open_kind(kind, tmp_path, files, split="validation")
    assert read_all(source) == [Record(b"a", 0), Record(b"b", 1)]
    assert "validation" not in source.name


@both_kinds
def test_an_image_beyond_the_end_is_an_index_error(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES, split="test")
    with pytest.raises(IndexError, match="0 to 2"):
        source[3]


@both_kinds
def test_a_negative_index_is_an_index_error(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES, split="test")
    with pytest.raises(IndexError, match="0 to 2"):
        source[-1]


@both_kinds
def test_inspecting_counts_what_opening_reads(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES, split="train")
    spec = f"folder:{tmp_path / ('data' if kind == 'folder' else 'data.tar')}"
    facts = inspect_source(spec, split="train")
    assert facts == SourceFacts(num_classes=3, num_examples=len(source))


@both_kinds
def test_a_source_travels_to_a_spawned_process(kind, tmp_path):
    source = open_kind(kind, tmp_path, FILES, split="train")
    here = read_all(source)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.starmap(operator.getitem, [(source, i) for i in range(len(source))])
    assert there == here


@both_kinds
def test_threads_read_the_same_as_one_thread(kind, tmp_path):
    files = {f"train/class{i % 7}/{i:04}.jpg": b"%d" % i * (i + 1) for i in range(400)}
    source = open_kind(kind, tmp_path, files, split="train")
    expected = [files[f"train/{source.path(i).partition('train/')[2]}"] for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: source[index].image, range(400)))
    assert read == expected


def test_a_folder_path_is_the_file(tmp_path):
    source = open_kind("folder", tmp_path, FILES, split="train")
    assert Path(source.path(2)).read_bytes() == b"cat c"


def test_a_tar_path_names_archive_and_member(tmp_path):
    source = open_kind("tar", tmp_path, FILES, split="train")
    assert source.path(2) == f"{tmp_path / 'data.tar'}!train/cat/deeper/still/c.png"


def test_the_imagenet_c_layout_is_reached_by_its_path(tmp_path):
    files = {f"fog/{s}/n0144/{i}.JPEG": b"%d %d" % (s, i) for s in (1, 2) for i in (0, 1)}
    write_folder(tmp_path, files)
    source = open_source(f"folder:{tmp_path}/fog/2", split="test")
    assert source.class_names == ("n0144",)
    assert [record.image for record in read_all(source)] == [b"2 0", b"2 1"]


def test_a_link_to_a_parent_folder_does_not_list_images_twice(tmp_path):
    write_folder(tmp_path, {"cat/a.jpg": b"a"})
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    assert len(open_source(f"folder:{tmp_path}", split="train")) == 1


def test_linked_class_folders_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"a.jpg": b"a"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    assert open_source(f"folder:{tmp_path / 'data'}", split="train")[0] == Record(b"a", 0)


def test_names_that_are_not_utf8_can_be_read(tmp_path):
    folder = os.fsencode(tmp_path) + b"/cat"
    os.mkdir(folder)
    with open(folder + b"/\xff.jpg", "wb") as file:
        file.write(b"a")
    assert open_source(f"folder:{tmp_path}", split="train")[0].image == b"a"


@pytest.mark.parametrize("prefix", ["cifar/", "./", "./cifar/"])
def test_a_tar_may_have_one_leading_folder(prefix, tmp_path):
    write_tar(tmp_path / "data.tar", FILES, prefix=prefix)
    source = open_source(f"folder:{tmp_path / 'data.tar'}", split="test")
    assert [record.image for record in read_all(source)] == [b"cat f", b"big cat g", b"dog h"]


def test_a_tar_may_have_a_leading_folder_and_no_splits(tmp_path):
    write_tar(tmp_path / "a.tar", {"cat/a.jpg": b"a", "dog/b.jpg": b"b"}, prefix="pets/")
    assert open_source(f"folder:{tmp_path / 'a.tar'}", split="x").class_names == ("cat", "dog")


def test_a_tar_of_one_class_keeps_that_class(tmp_path):
    write_tar(tmp_path / "a.tar", {"cat/a.jpg": b"a"})
    assert open_source(f"folder:{tmp_path / 'a.tar'}", split="x").class_names == ("cat",)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_member_names_are_read_in_every_tar_format(form, tmp_path):
    name = "train/" + "c" * 70 + "/" + "x" * 90 + ".jpg"
    write_tar(tmp_path / "a.tar", {name: b"long"}, format=form)
    source = open_source(f"folder:{tmp_path / 'a.tar'}", split="train")
    assert source.path(0).endswith(name)
    assert source[0].image == b"long"


def test_the_later_of_two_members_of_one_name_counts(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"cat/a.jpg": b"old"})
    write_tar(path, {"cat/a.jpg": b"new"}, mode="a")
    source = open_source(f"folder:{path}", split="train")
    assert read_all(source) == [Record(b"new", 0)]


# --- what cannot be opened


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "Unknown data source 'digit'.*Did you mean 'digits'"),
        ("folders:/data", "Did you mean 'folder:/data'"),
        ("/data/imagenet", "Did you mean 'folder:/data/imagenet'"),
        ("tfds", "needs a colon"),
        ("folder:", "Unknown data source 'folder:'"),
    ],
)
def test_an_unknown_name_suggests_the_right_one(spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec, split="train")


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        open_source(f"folder:{tmp_path}/nowhere", split="train")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        open_source(f"folder:{tmp_path}", split="train")


def test_an_empty_tar_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        open_kind("tar", tmp_path, {}, split="train")


def test_an_empty_class_folder_is_named(tmp_path):
    write_folder(tmp_path, {"cat/a.jpg": b"a", "dog/notes.txt": b"-"})
    with pytest.raises(ValueError, match="1 of 2 class folders hold no image: dog"):
        open_source(f"folder:{tmp_path}", split="train")


def test_an_empty_class_folder_in_a_tar_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"cat/a.jpg": b"a"})
    with tarfile.open(path, "a") as archive:
        empty = tarfile.TarInfo("dog/")
        empty.type = tarfile.DIRTYPE
        archive.addfile(empty)
    with pytest.raises(ValueError, match="1 of 2 class folders hold no image: dog"):
        open_source(f"folder:{path}", split="train")


@pytest.mark.parametrize(
    ("mode", "command"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")]
)
def test_a_compressed_tar_is_refused_with_the_command_that_helps(mode, command, tmp_path):
    path = write_tar(tmp_path / "a.tar.z", {"cat/a.jpg": b"a"}, mode=mode)
    with pytest.raises(ValueError, match=f"compressed.*{command} --keep {path}"):
        open_source(f"folder:{path}", split="train")


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(ValueError, match="cannot be read as an uncompressed tar"):
        open_source(f"folder:{tmp_path / 'a.tar'}", split="train")


def test_a_tar_that_is_cut_short_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"cat/a.jpg": b"a" * 5000})
    os.truncate(path, 3000)
    with pytest.raises(ValueError, match="cut short|cannot be read"):
        open_source(f"folder:{path}", split="train")


def test_a_tar_that_changed_after_the_scan_is_refused(tmp_path):
    source = open_kind("tar", tmp_path, FILES, split="train")
    write_tar(tmp_path / "data.tar", {"cat/another.jpg": b"a" * 20_000})
    with pytest.raises(ValueError, match="changed since it was scanned"):
        source[0]


def test_inspecting_imports_neither_tfds_nor_scikit_learn(tmp_path):
    write_folder(tmp_path, FILES)
    program = (
        "import sys; from lska_jax.data.opening import inspect_source\n"
        f"inspect_source('folder:{tmp_path}', split='train')\n"
        "inspect_source('digits', split='train')\n"
        "print(sorted({'sklearn', 'tensorflow_datasets', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
