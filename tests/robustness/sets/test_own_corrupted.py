"""Corrupted images of a model's own classes, in folders, a tar or CIFAR-10-C's arrays."""

import pickle
import tarfile

import numpy as np
import pytest
from known_models import PREPARED, reader, write_pictures

from lska_jax.robustness import evaluate
from lska_jax.robustness.report.write import write_report
from lska_jax.robustness.sets.own_corrupted import find_corruptions, open_corrupted

NAMES = ("bird", "car", "cat", "dog")


def write_arrays(root, *, classes: tuple[str, ...] = (), each: bool = True):
    """Write two images a severity whose first pixel says which they are."""
    root.mkdir()
    for corruption in ("fog", "rain"):
        images = np.zeros((10, 8, 8, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(10)
        np.save(root / f"{corruption}.npy", images)
    labels = np.array([1, 0])
    np.save(root / "labels.npy", np.tile(labels, 5) if each else labels)
    if classes:
        (root / "classes.txt").write_text("\n".join(classes))
    return root


@pytest.mark.parametrize("each", [True, False])
def test_arrays_hold_the_severities_one_after_the_other(each, tmp_path):
    place = write_arrays(tmp_path / "c", each=each)
    assert list(find_corruptions(place)) == ["fog", "rain"]
    source = pickle.loads(
        pickle.dumps(open_corrupted(place, "fog", 3, class_names=("low", "high")))
    )
    assert [source[n].image[0, 0, 0] for n in range(2)] == [4, 5]
    assert [source.class_names[source[n].label] for n in range(2)] == ["high", "low"]
    assert source.path(1).endswith("fog.npy#5")


def test_numbers_are_positions_in_the_list_beside_them(tmp_path):
    place = write_arrays(tmp_path / "c", classes=("b", "a"))
    source = open_corrupted(place, "fog", 1, class_names=("a", "b"))
    assert [source.class_names[source[n].label] for n in range(2)] == ["a", "b"]


def test_numbers_of_cifar10s_classes_are_in_its_order(tmp_path):
    model = (
        "truck",
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
    )
    source = open_corrupted(write_arrays(tmp_path / "c"), "fog", 1, class_names=model)
    assert source.class_names[source[0].label] == "automobile"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fog", np.zeros((10, 8, 8), np.uint8), r"expected uint8 \(5 N, H, W, 3\)"),
        ("fog", np.zeros((9, 8, 8, 3), np.uint8), "expected uint8"),
        ("labels", np.zeros(3, int), "expected 2 class numbers, or 10"),
        ("labels", np.full(2, 7), "class numbers from 7 to 7, and there are 2 classes"),
        ("labels", np.array([{}]), "cannot be read as an array of numbers"),
    ],
)
def test_arrays_of_other_shapes_and_pickles_are_refused(name, array, message, tmp_path):
    place = write_arrays(tmp_path / "c")
    np.save(place / f"{name}.npy", array)
    with pytest.raises(ValueError, match=message):
        open_corrupted(place, "fog", 1, class_names=("a", "b"))


def test_a_place_without_corrupted_images_says_what_is_expected(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(ValueError, match="holds no corrupted images. Expected: CORRUPTION/SEV"):
        find_corruptions(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("is_tar", [False, True])
def test_a_sweep_reads_them_in_place_of_generating(is_tar, tmp_path):
    write_pictures(tmp_path / "photos", {name: [n, n] for n, name in enumerate(NAMES)})
    for severity in range(1, 6):
        for corruption, wrong in (("fog", severity), ("rain", 1)):
            answers = {name: [n, (n + (n < wrong)) % 4] for n, name in enumerate(NAMES)}
            write_pictures(tmp_path / "c" / "top" / corruption / str(severity), answers)
    place = tmp_path / "c"
    if is_tar:
        place = tmp_path / "c.tar"
        with tarfile.open(place, "w") as archive:
            archive.add(tmp_path / "c" / "top", "top")
    (summary,) = evaluate(
        {"known": reader(4)},
        out=tmp_path / "out",
        preprocessing=PREPARED,
        class_names=NAMES,
        data_root=str(tmp_path),
        batch_size=8,
        num_workers=0,
        clean=f"folder:{tmp_path / 'photos'}",
        corrupted=str(place),
        suite="imagenet,imagenet_c",
    )
    found = {key: stamped.score.value for key, stamped in summary.scores.items()}
    assert found["clean/top1"] == 1.0
    assert found["clean_c/error/fog"] == pytest.approx(np.mean([1, 2, 3, 4, 4]) / 8)
    assert found["own_c/error/rain"] == pytest.approx(1 / 8)
    assert summary.scores["clean_c/error/fog"].provenance == "own"
    assert "Own corruptions" in write_report([summary], tmp_path / "report").read_text()
