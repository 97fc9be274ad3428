"""Images that a CSV file lists."""

from pathlib import Path

import numpy as np
import pytest

from lska_jax.data.notes import forget_notes
from lska_jax.data.opening import inspect_source, open_source, source_of
from lska_jax.data.sources import MissingSplit, Source, share_examples


@pytest.fixture(autouse=True)
def notes_are_said_anew():
    forget_notes()


def write(root: Path, text: str, *, names: str = "a.jpg b.jpg c.jpg d.jpg") -> str:
    """Write a list, and files that hold their names; return the source's name."""
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "list.csv").write_text(text)
    return f"csv:{root / 'list.csv'}"


def contents(source: Source) -> list[tuple[str, str]]:
    records = [source[n] for n in range(len(source))]
    return [(bytes(r.image).decode(), source.class_names[r.label]) for r in records]


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,cat\nb.jpg,dog\n",
        "path,label\na.jpg,cat\nb.jpg,dog\n",
        "label;filename\ncat;a.jpg\ndog;b.jpg\n",
        "\ufeffImage\tClass\r\na.jpg\tcat\r\n\r\nb.jpg\tdog\r\n",
    ],
)
def test_a_list_with_and_without_names_of_columns_is_read(text, tmp_path):
    spec = write(tmp_path, text)
    assert contents(open_source(spec, split="train")) == [("a.jpg", "cat"), ("b.jpg", "dog")]
    assert inspect_source(spec, split="train") == (2, 2)


def test_classes_are_those_of_the_whole_file_and_numbers_are_in_their_order(tmp_path):
    spec = write(tmp_path, "path,label,split\na.jpg,10,train\nb.jpg,9,train\nc.jpg,2,val\n")
    train, held = (open_source(spec, split=split) for split in ("train", "validation"))
    assert train.class_names == held.class_names == ("2", "9", "10")
    assert contents(train) == [("a.jpg", "10"), ("b.jpg", "9")]
    assert contents(held) == [("c.jpg", "2")]


def test_a_split_that_the_file_lacks_is_named_with_those_there_are(tmp_path):
    spec = write(tmp_path, "path,label,split\na.jpg,x,train\n")
    with pytest.raises(MissingSplit, match=r"no split 'test'; it holds train"):
        open_source(spec, split="test")


def test_slices_share_no_image_and_have_their_share_of_each_class(tmp_path):
    lines = [f"{label}/{n}.jpg,{label}" for label in ("x", "y") for n in range(10)]
    spec = write(tmp_path, "\n".join(lines), names=" ".join(x.split(",")[0] for x in lines))
    first, second = (open_source(spec, split=part) for part in ("train[:80%]", "train[80%:]"))
    assert np.bincount(first.labels).tolist() == [8, 8]
    assert np.bincount(second.labels).tolist() == [2, 2]
    assert not share_examples(first, second)
    assert not set(contents(first)) & set(contents(second))


def test_several_labels_of_an_image_are_a_row_of_ones(tmp_path):
    spec = write(tmp_path, "path,labels\na.jpg,sea|boat\nb.jpg,\nc.jpg,sea\n")
    source = open_source(spec, split="train", is_multi_label=True)
    assert source.class_names == ("boat", "sea")
    assert [source[n].label.tolist() for n in range(3)] == [[1, 1], [0, 0], [0, 1]]


def test_rare_sets_of_labels_are_drawn_and_not_cut_by_their_order(tmp_path):
    lines = []
    for n in range(100):
        (tmp_path / f"{n}.png").touch()
        lines.append(f"{n}.png,x{n // 10}|y{n}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    held = open_source(f"csv:{tmp_path / 'list.csv'}", split="train[80%:]", is_multi_label=True)
    assert len(held) == 20
    assert len({name for name in held.class_names if name[0] == "x"}) == 10
    tens = {int(Path(held.path(n)).stem) // 10 for n in range(20)}
    assert len(tens) >= 6


def test_a_folder_has_no_several_labels(tmp_path):
    with pytest.raises(ValueError, match="has one label an image. Several are read from a CSV"):
        open_source(f"folder:{tmp_path}", split="train", is_multi_label=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "lists no image"),
        ("a.jpg,cat\nb.jpg\n", r"line 2: 'b.jpg' has no path and label"),
        ("a.jpg,cat\nb.jpg,\n", r"line 2: b.jpg has no label"),
        ("a.jpg,cat\nz.jpg,cat\n", r"1 of 2 images are not there: z.jpg \(line 2\)"),
        ('a.jpg,"cat\n', "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_in_a_list_is_named_with_its_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source(write(tmp_path, text), split="train")


def test_a_place_says_what_kind_of_source_it_is(tmp_path):
    write(tmp_path, "a.jpg,cat\n")
    assert source_of(f"{tmp_path}/list.csv") == f"csv:{tmp_path}/list.csv"
    assert source_of(str(tmp_path)) == f"folder:{tmp_path}"
    assert source_of("cifar10:3.*.*") == "tfds:cifar10:3.*.*"
    assert source_of("digits") == "digits"
    with pytest.raises(ValueError, match="There is no ./photos"):
        source_of("./photos")
