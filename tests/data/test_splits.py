"""Splits of class folders: names as people write them, slices, and classes that are missing."""

import importlib.util
import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from lska_jax.data.notes import forget_notes
from lska_jax.data.opening import inspect_source, open_source
from lska_jax.data.sources import Source, share_examples

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def notes_are_said_anew():
    forget_notes()


def write(kind: str, root: Path, names: list[str]) -> str:
    """Write empty files into a folder, or members into a tar; return the source's name."""
    if kind == "folder":
        for name in names:
            (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "data" / name).write_bytes(name.encode())
        return f"folder:{root / 'data'}"
    with tarfile.open(root / "data.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    return f"folder:{root / 'data.tar'}"


def layout(*splits: str, classes: tuple[str, ...] = CLASSES, images: int = 2) -> list[str]:
    return [f"{s}/{c}/{n}.jpg" for s in splits for c in classes for n in range(images)]


def contents(source: Source) -> list[str]:
    return [bytes(source[n].image).decode() for n in range(len(source))]


both_kinds = pytest.mark.parametrize("kind", ["folder", "tar"])


@both_kinds
@pytest.mark.parametrize(
    ("folders", "split", "chosen"),
    [
        (("Train", "Val"), "train", "Train"),
        (("Train", "Val"), "validation", "Val"),
        (("TRAIN", "VAL"), "val", "VAL"),
        (("training", "valid"), "validation", "valid"),
        (("train", "val"), "test", "val"),
        (("train", "test"), "validation", "test"),
        (("train", "val", "test"), "validation", "val"),
        (("train", "val", "test"), "test", "test"),
        (("training_set", "test_set"), "train", "training_set"),
        (("Training", "Testing", "Validation"), "val", "Validation"),
        (("train", "dev"), "val", "dev"),
    ],
)
def test_a_split_is_found_under_the_names_that_people_give_it(
    kind, folders, split, chosen, tmp_path, capsys
):
    source = open_source(write(kind, tmp_path, layout(*folders)), split=split)
    assert contents(source) == layout(chosen)
    assert source.class_names == CLASSES
    assert source.name.endswith(chosen)
    said = capsys.readouterr().err
    assert (f"has no split {split!r}; {chosen!r} is read for it" in said) == (chosen != split)


@both_kinds
def test_two_folders_that_may_be_the_split_are_an_error_that_names_both(kind, tmp_path):
    place = write(kind, tmp_path, layout("train", "val", "valid"))
    with pytest.raises(ValueError, match="several splits that 'validation' may mean: val, valid"):
        open_source(place, split="validation")
    assert contents(open_source(place, split="val")) == layout("val")


@both_kinds
def test_a_missing_split_lists_those_that_exist_and_how_to_cut_one(kind, tmp_path):
    place = write(kind, tmp_path, layout("train"))
    with pytest.raises(ValueError, match=r"no split 'val'.*: train. .*'train\[:80%\]' and"):
        open_source(place, split="val")


@both_kinds
@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("train", "test"), ("TEST", "val")])
def test_folders_of_images_that_are_named_like_splits_are_no_classes(kind, names, tmp_path):
    place = write(kind, tmp_path, [f"{name}/a.jpg" for name in names])
    for split in ("train", "validation", "other"):
        with pytest.raises(ValueError, match="named like splits, but no class folders"):
            open_source(place, split=split)


@both_kinds
def test_a_split_folder_with_loose_images_is_no_class(kind, tmp_path):
    place = write(kind, tmp_path, [*layout("train", "val"), "train/preview.jpg"])
    assert contents(open_source(place, split="train")) == layout("train")
    with pytest.raises(ValueError, match="no split 'other'.*train, val"):
        open_source(place, split="other")


@both_kinds
def test_a_class_called_like_a_split_is_a_class_among_others(kind, tmp_path):
    place = write(kind, tmp_path, ["cat/a.jpg", "test/b.jpg"])
    assert open_source(place, split="validation").class_names == ("cat", "test")
    assert open_source(place, split="test").class_names == ("cat", "test")


@both_kinds
@pytest.mark.parametrize("wrapper", ["flowers", "a/b", "__MACOSX/../flowers"])
def test_one_folder_around_all_is_entered(kind, wrapper, tmp_path):
    if ".." in wrapper:
        names = [f"flowers/{n}" for n in layout("train", "val")] + ["__MACOSX/flowers/._a.jpg"]
    else:
        names = [f"{wrapper}/{name}" for name in layout("train", "val")]
    source = open_source(write(kind, tmp_path, names), split="train")
    assert source.class_names == CLASSES and len(source) == 6


@both_kinds
def test_a_split_folder_inside_itself_is_entered(kind, tmp_path):
    names = layout("training_set/training_set", "test_set/test_set")
    source = open_source(write(kind, tmp_path, names), split="train")
    assert source.class_names == CLASSES


# --- classes


@both_kinds
def test_a_class_missing_in_val_keeps_the_labels_of_train(kind, tmp_path, capsys):
    names = layout("train") + layout("val", classes=("ant", "cat"))
    place = write(kind, tmp_path, names)
    source = open_source(place, split="val")
    assert source.class_names == CLASSES
    assert [source[n].label for n in range(len(source))] == [0, 0, 2, 2]
    assert "1 of 3 class folders hold no image: bee. They count" in capsys.readouterr().err
    assert inspect_source(place, split="val").num_classes == 3


def test_an_empty_class_folder_in_val_is_as_good_as_none(tmp_path, capsys):
    place = write("folder", tmp_path, layout("train") + layout("val", classes=("ant", "cat")))
    (tmp_path / "data" / "val" / "bee").mkdir()
    assert len(open_source(place, split="val")) == 4
    assert ": bee. " in capsys.readouterr().err


def test_an_empty_class_folder_in_train_is_refused_with_what_to_do(tmp_path):
    place = write("folder", tmp_path, layout("train", "val"))
    (tmp_path / "data" / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match="1 of 4 .*dog; add images .*, or remove .* every split"):
        open_source(place, split="train")


@both_kinds
def test_a_class_that_train_lacks_is_refused(kind, tmp_path):
    names = layout("train") + layout("val", classes=("ant", "bee", "cow"))
    with pytest.raises(ValueError, match="val and the training split .* classes: cat, cow"):
        open_source(write(kind, tmp_path, names), split="val")


@both_kinds
def test_names_with_an_accent_written_in_two_ways_are_one_class(kind, tmp_path):
    names = layout("train", classes=("a", "caf\u00e9", "z")) + layout(
        "val", classes=("a", "cafe\u0301", "z")
    )
    place = write(kind, tmp_path, names)
    train, val = (open_source(place, split=split) for split in ("train", "val"))
    assert val.class_names == train.class_names
    assert [val[n].label for n in range(len(val))] == [0, 0, 1, 1, 2, 2]


# --- slices


def counts(source: Source) -> dict[int, int]:
    return dict(Counter(source[n].label for n in range(len(source))))


@both_kinds
def test_two_slices_share_no_image_and_miss_none_and_hold_each_class_alike(kind, tmp_path):
    place = write(kind, tmp_path, layout("train", images=10))
    first, second = (open_source(place, split=split) for split in ("train[:80%]", "train[80%:]"))
    assert counts(first) == {0: 8, 1: 8, 2: 8} and counts(second) == {0: 2, 1: 2, 2: 2}
    assert sorted(contents(first) + contents(second)) == sorted(layout("train", images=10))
    assert first.name.endswith("train[:80%]") and second.name.endswith("train[80%:]")
    assert first.class_names == second.class_names == CLASSES


def test_a_slice_is_the_same_in_a_folder_and_in_a_tar_and_without_a_split_folder(tmp_path):
    names = layout("train", images=10)
    flat = [name.removeprefix("train/") for name in names]
    places = [write("folder", tmp_path, names), write("tar", tmp_path, names)]
    places.append(write("folder", tmp_path / "flat", flat))
    read = [
        [name[-9:] for name in contents(open_source(place, split="train[30%:60%]"))]
        for place in places
    ]
    assert read[0] == read[1] == read[2] and len(read[0]) == 9


def test_a_new_image_moves_no_more_than_one_other_from_slice_to_slice(tmp_path):
    names = [f"train/ant/{n}.jpg" for n in range(50)] + ["train/bee/0.jpg"]
    place = write("folder", tmp_path, names)
    before = set(contents(open_source(place, split="train[:80%]")))
    write("folder", tmp_path, ["train/ant/new.jpg"])
    after = set(contents(open_source(place, split="train[:80%]")))
    assert len(before - after) <= 1


@pytest.mark.parametrize(
    ("split", "count"),
    [
        ("train[:7]", 7),
        ("train[-4:]", 4),
        ("train[2:5]", 3),
        ("train[:33%]", 10),
        ("train+val", 36),
    ],
)
def test_slices_are_counted_as_those_of_tfds(split, count, tmp_path):
    place = write("folder", tmp_path, layout("train", images=10) + layout("val", images=2))
    assert len(open_source(place, split=split)) == count


def test_train_and_val_together_are_one_source(tmp_path):
    place = write("folder", tmp_path, layout("train", "val"))
    source = open_source(place, split="train + val")
    assert contents(source) == layout("train", "val")
    assert source.name == f"{place}/train+{place}/val"


@pytest.mark.parametrize(
    "split", ["train[", "train[a:]", "train[3]", "train[0shard]", "train[:99]"]
)
def test_a_slice_that_makes_no_sense_is_refused(split, tmp_path):
    place = write("folder", tmp_path, layout("train", "val"))
    with pytest.raises(ValueError, match="split|slice|shard"):
        open_source(place, split=split)


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        ("train[:80%]", "train[80%:]", False),
        ("train[:80%]", "train[70%:]", True),
        ("train", "train[80%:]", True),
        ("train", "val", False),
        ("train+val", "val[:1]", True),
        ("train[:5]", "train[5:]", False),
        ("train[:50%]", "train[14:]", True),
    ],
)
def test_slices_know_whether_they_share_images(first, second, is_shared, tmp_path):
    place = write("folder", tmp_path, layout("train", images=10) + layout("val"))
    sources = [open_source(place, split=split) for split in (first, second)]
    assert share_examples(*sources) == is_shared
    assert bool(set(contents(sources[0])) & set(contents(sources[1]))) == is_shared


def test_a_split_and_a_slice_of_it_share_images_without_split_folders_too(tmp_path):
    place = write("folder", tmp_path, ["ant/a.jpg", "ant/b.jpg", "bee/c.jpg", "bee/d.jpg"])
    train, val = (open_source(place, split=split) for split in ("train", "val[50%:]"))
    assert share_examples(train, val)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_seed_makes_another_draw_with_the_same_share_of_each_class(kind, tmp_path):
    names = layout("train", images=20)
    place = write("folder", tmp_path, [name.removeprefix("train/") for name in names])
    if kind == "csv":
        files = sorted((tmp_path / "data").rglob("*.jpg"))
        lines = [f"{file},{file.parent.name}" for file in files]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        place = f"csv:{tmp_path / 'list.csv'}"
    plain, first, second = (
        open_source(place, split=f"train[:80%{seed}]") for seed in ("", "; seed=1", ";seed=2")
    )
    rest = open_source(place, split="train[80%:;seed=1]")
    assert counts(first) == counts(plain) == {0: 16, 1: 16, 2: 16}
    read = [{source.path(n) for n in range(len(source))} for source in (plain, first, second)]
    assert len({frozenset(paths) for paths in read}) == 3
    assert len(read[1] | {rest.path(n) for n in range(len(rest))}) == 60
    assert first.name.endswith("[:80%;seed=1]")
    assert not share_examples(first, rest)
    assert share_examples(plain, rest) and share_examples(first, second)


def test_an_empty_slice_is_refused(tmp_path):
    place = write("folder", tmp_path, layout("train", "val"))
    with pytest.raises(ValueError, match=r"train\[5:2\] has no images"):
        open_source(place, split="train[5:2]")


# --- the layout of the README, and what is no folder


# COCO's splits are named by their year; its files are no class folders.
@pytest.mark.parametrize(
    "config",
    sorted(set(CONFIGS.glob("*.py")) - set(CONFIGS.glob("*_coco.py"))),
    ids=lambda c: c.stem,
)
def test_the_layout_of_the_documentation_works_with_every_shipped_config(config, tmp_path):
    assert "PATH/{train,val}/CLASS/*.jpg" in (ROOT / "docs" / "data.md").read_text()
    place = write("folder", tmp_path, layout("train", "val"))
    spec = importlib.util.spec_from_file_location(config.stem, config)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = module.get_config().data
    assert inspect_source(place, split=data.train_split).num_examples == 6
    assert open_source(place, split=data.eval_split).name.endswith("data/val")


def test_a_zip_is_named_with_the_command_that_unpacks_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("train/ant/a.png", b"x")
    command = f"unzip -q {tmp_path}/pets.zip -d {tmp_path}/pets"
    with pytest.raises(ValueError, match=f"is a zip archive.*{command}"):
        open_source(f"folder:{tmp_path / 'pets.zip'}", split="train")


def test_a_folder_of_archives_says_to_unpack_them(tmp_path):
    (tmp_path / "train.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"has no class.*Unpack train.zip first"):
        open_source(f"folder:{tmp_path}", split="train")


def test_a_folder_of_images_without_classes_says_how_many_lie_there(tmp_path):
    place = write("folder", tmp_path, ["train/a.jpg", "train/b.jpg", "other/c.jpg"])
    with pytest.raises(ValueError, match="no class folders.*2 lie loosely in it"):
        open_source(place + "/train", split="train")
