"""TFDS sets through TFDS's real builders, fed with small archives.

imagenet2012_corrupted decodes and crops with TensorFlow, which the project does without: its test
replaces that one function, and what lies beyond it is the builder's own.
"""

import gzip
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_trees import WNIDS, wnid_folders, write_tree
from tar_files import make_tar
from tfds_cache import cache_download

from lska_jax.commands.prepare import main
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.label_sets import shape_classes, subset_classes
from lska_jax.robustness.sets.opening import MissingSet, choose_provenances, find_missing, open_cell

HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
SKETCH = "https://drive.google.com/u/0/uc?id=1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA&export=download"
V2 = "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main"
REAL = "https://raw.githubusercontent.com/google-research/reassessed-imagenet/master/real.json"
CUES = "texture-vs-shape-1b69c6a445c3348927139edb30a5134521fd4b03"
MAPPING = (
    "https://raw.githubusercontent.com/rgeirhos/generalisation-humans-DNNs/"
    "5bbe08f6821e1eb2bdbe98acebf3586d36be00ab/16-class-ImageNet/"
    "MSCOCO_to_ImageNet_category_mapping.txt"
)


def make_image(level: int, form: str = "JPEG") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), (level % 256, 0, level // 256)).save(encoded, form)
    return encoded.getvalue()


def make_zip(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def prepare(name: str, data_dir: Path, **options: str) -> None:
    flags = [text for key, value in options.items() for text in (f"--{key}", value)]
    assert main(["tfds", name, "--data_dir", str(data_dir), *flags]) == 0
    assert "tensorflow" not in sys.modules


def read_images(source) -> dict[bytes, int]:
    return {source[i].image: source[i].label for i in range(len(source))}


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_subset_has_labels_of_the_thousand(name, tmp_path):
    labels = subset_classes(name)[[0, 100, 199]].tolist()
    folder = name.replace("_", "-")
    files = {f"{folder}/{WNIDS[label]}/{label}.jpg": make_image(label) for label in labels}
    cache_download(tmp_path, name, f"{HENDRYCKS}/{folder}.tar", make_tar(files))
    prepare(name, tmp_path)
    data = open_cell(Cell(name), data_root=tmp_path)
    assert read_images(data.source) == {make_image(label): label for label in labels}
    assert data.provenance == "tfds"
    assert data.origin == f"tfds:{name} in {tmp_path}"
    assert data.note.startswith("incomplete: 3 of ")


def test_sketches_have_labels_of_the_thousand(tmp_path):
    files = {f"sketch/{WNIDS[n]}/sketch_{n}.JPEG": make_image(n) for n in (0, 7, 999)}
    cache_download(tmp_path, "imagenet_sketch", SKETCH, make_zip(files))
    prepare("imagenet_sketch", tmp_path)
    data = open_cell(Cell("imagenet_sketch"), data_root=tmp_path)
    assert read_images(data.source) == {make_image(n): n for n in (0, 7, 999)}


@pytest.mark.parametrize(
    ("part", "config", "name"),
    [
        ("matched-frequency", "matched-frequency", "matched-frequency"),
        ("threshold-0.7", "threshold-0.7", "threshold0.7"),
        ("top-images", "topimages", "top-images"),
    ],
)
def test_class_numbers_of_v2_are_the_labels(part, config, name, tmp_path):
    files = {f"imagenetv2-{name}-format-val/{n}/x.jpeg": make_image(n) for n in (0, 2, 10, 999)}
    archive = gzip.compress(make_tar(files))
    cache_download(tmp_path, f"imagenet_v2/{config}", f"{V2}/imagenetv2-{name}.tar.gz", archive)
    prepare(f"imagenet_v2/{config}", tmp_path)
    data = open_cell(Cell("imagenet_v2", part), data_root=tmp_path)
    assert read_images(data.source) == {make_image(n): n for n in (0, 2, 10, 999)}


VALIDATION = {f"ILSVRC2012_val_{n:08}.JPEG": make_image(n) for n in (1, 2, 3)}


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    write_tree(tmp_path / "manual", {"ILSVRC2012_img_val.tar": make_tar(VALIDATION)})
    train = {f"{WNIDS[4]}.tar": make_tar({f"{WNIDS[4]}_1.JPEG": make_image(4)})}
    write_tree(tmp_path / "manual", {"ILSVRC2012_img_train.tar": make_tar(train)})
    return tmp_path / "manual"


def test_real_labels_come_from_the_records(manual_dir, tmp_path):
    label_sets = [[5, 999, 0], [], [7], *([] for _ in range(49_997))]
    cache_download(tmp_path, "imagenet2012_real", REAL, json.dumps(label_sets).encode())
    prepare("imagenet2012_real", tmp_path, manual_dir=str(manual_dir))
    data = open_cell(Cell("imagenet_real"), data_root=tmp_path)
    found = {
        data.source[i].image: sorted(set(data.extra["real_labels"][i].tolist()) - {-1})
        for i in range(3)
    }
    assert found == {make_image(1): [0, 5, 999], make_image(2): [], make_image(3): [7]}
    assert data.extra["real_labels"].shape == (3, 3)
    # The original labels, from the official list.
    wnids = {WNIDS[data.source[i].label] for i in range(3)}
    assert wnids == {"n01751748", "n09193705", "n02105855"}


def test_the_clean_set_is_imagenet2012s_validation_split(manual_dir, tmp_path):
    arguments = ["imagenet2012", "--manual_dir", str(manual_dir), "--data_dir", str(tmp_path)]
    assert main(arguments) == 0
    data = open_cell(Cell("imagenet"), data_root=tmp_path)
    assert set(read_images(data.source)) == set(VALIDATION.values())


@pytest.fixture
def cues(tmp_path) -> Path:
    """A data folder with three stimuli, prepared by TFDS."""
    folder = f"{CUES}/stimuli/style-transfer-preprocessed-512"
    names = ("cat/cat1-dog2.png", "dog/dog1-dog2.png", "truck/truck3-oven1.png")
    files = {f"{folder}/{name}": make_image(n, "PNG") for n, name in enumerate(names)}
    url = f"https://github.com/rgeirhos/texture-vs-shape/archive/{CUES.rpartition('-')[2]}.zip"
    cache_download(tmp_path, "geirhos_conflict_stimuli", url, make_zip(files))
    mapping = "\n".join(
        f"{shape} = [{', '.join(WNIDS[label] for label in labels)}]"
        for shape, labels in shape_classes().items()
    )
    cache_download(tmp_path, "geirhos_conflict_stimuli", MAPPING, mapping.encode())
    prepare("geirhos_conflict_stimuli", tmp_path)
    return tmp_path


def read_cues(data) -> dict[bytes, tuple[str, str]]:
    names = data.source.class_names
    return {
        data.source[i].image: (names[data.source[i].label], names[data.extra["texture"][i]])
        for i in range(len(data.source))
    }


def test_cue_conflicts_have_shape_and_texture(cues):
    data = open_cell(Cell("cue_conflict"), data_root=cues)
    assert read_cues(data) == {
        make_image(0, "PNG"): ("cat", "dog"),
        make_image(1, "PNG"): ("dog", "dog"),
        make_image(2, "PNG"): ("truck", "oven"),
    }


def test_cue_conflicts_of_shared_classes(cues):
    data = open_cell(Cell("cue_conflict"), data_root=cues, shapes=("dog", "cat", "truck"))
    assert read_cues(data) == {
        make_image(0, "PNG"): ("cat", "dog"),
        make_image(1, "PNG"): ("dog", "dog"),
    }
    assert data.provenance == "tfds"


FROST = "https://raw.githubusercontent.com/hendrycks/robustness/master/ImageNet-C/imagenet_c"
FROST += "/imagenet_c/frost/frost"


def test_a_corruption_of_tfds_is_found_by_name_and_severity(manual_dir, tmp_path, monkeypatch):
    import contextlib
    from types import SimpleNamespace

    from tensorflow_datasets.datasets.imagenet2012_corrupted import (
        imagenet2012_corrupted_dataset_builder as module,
    )

    name = "imagenet2012_corrupted/contrast_4"
    for number in range(1, 7):
        suffix = "png" if number < 4 else "jpg"
        cache_download(tmp_path, name, f"{FROST}{number}.{suffix}", b"-")
    decoded = dict.fromkeys(VALIDATION.values(), np.full((224, 224, 3), 90))
    monkeypatch.setattr(module, "_decode_and_center_crop", decoded.__getitem__)
    graph = SimpleNamespace(as_default=contextlib.nullcontext)
    monkeypatch.setattr(module, "tf", SimpleNamespace(Graph=lambda: graph))
    monkeypatch.setattr(module.tfds, "as_numpy", lambda pixels: pixels)
    # Seeded by the builder, not used by contrast.
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setRNGSeed=lambda seed: None))
    prepare(name, tmp_path, manual_dir=str(manual_dir))

    cells = [Cell("imagenet_c", "contrast", severity) for severity in (3, 4)]
    assert [hole.cell for hole in find_missing(cells, data_root=tmp_path)] == cells[:1]
    data = open_cell(cells[1], data_root=tmp_path)
    assert data.provenance == "tfds"
    wnids = {WNIDS[data.source[i].label] for i in range(3)}
    assert wnids == {"n01751748", "n09193705", "n02105855"}
    sizes = {Image.open(io.BytesIO(data.source[i].image)).size for i in range(3)}
    assert sizes == {(224, 224)}


# --- where sets are looked for


@pytest.fixture
def both(tmp_path) -> Path:
    """A data folder with ImageNet-A as its authors lay it out and as TFDS prepares it."""
    label = int(subset_classes("imagenet_a")[0])
    files = {f"imagenet-a/{WNIDS[label]}/a.jpg": make_image(label)}
    cache_download(tmp_path, "imagenet_a", f"{HENDRYCKS}/imagenet-a.tar", make_tar(files))
    prepare("imagenet_a", tmp_path)
    write_tree(tmp_path, wnid_folders("imagenet-a", [label]))
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "given"), [("auto", "official"), ("official", "official"), ("tfds", "tfds")]
)
def test_the_authors_files_go_before_tfds(asked, given, both):
    assert open_cell(Cell("imagenet_a"), data_root=both, provenance=asked).provenance == given


@pytest.mark.parametrize("where", ["tfds", "tensorflow_datasets", "no_tfds"])
def test_prepared_sets_may_lie_in_a_folder_of_their_own(where, both, tmp_path):
    # "no_tfds" is the folder that TFDS itself is told to use.
    (both / "imagenet_a").rename(both / "moved")
    (both / where).mkdir()
    (both / "moved").rename(both / where / "imagenet_a")
    data = open_cell(Cell("imagenet_a"), data_root=tmp_path, provenance="tfds")
    assert str(both / where) in data.origin


def test_a_set_prepared_as_tfrecord_is_refused_with_what_converts_it(both):
    (info,) = (both / "imagenet_a").glob("*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="prepare convert imagenet_a:0.1.0"):
        open_cell(Cell("imagenet_a"), data_root=both, provenance="tfds")


def test_a_prepared_set_with_other_classes_is_refused(both):
    (names,) = (both / "imagenet_a").glob("*/label.labels.txt")
    names.write_text("\n".join(reversed(names.read_text().splitlines())))
    with pytest.raises(ValueError, match="classes that are not the 1000 of ImageNet-A"):
        open_cell(Cell("imagenet_a"), data_root=both, provenance="tfds")


def test_what_an_interrupted_preparation_left_is_not_a_set(both):
    (folder,) = (both / "imagenet_a").glob("[0-9]*")
    folder.rename(folder.with_name(f"incomplete.ABC_{folder.name}"))
    with pytest.raises(MissingSet, match="no TFDS set imagenet_a is prepared"):
        open_cell(Cell("imagenet_a"), data_root=both, provenance="tfds")


@pytest.mark.parametrize(
    ("official", "prepared", "chosen"),
    [((1, 2, 3), (1, 2, 3), "official"), ((1,), (1, 2), "tfds"), ((), (), "official")],
    ids=str,
)
def test_one_provenance_is_chosen_for_all_cells_of_a_set(official, prepared, chosen, tmp_path):
    for severity in official:
        write_tree(tmp_path, wnid_folders(f"imagenet-c/fog/{severity}", [0]))
    for severity in prepared:
        folder = f"imagenet2012_corrupted/fog_{severity}/3.1.0"
        write_tree(tmp_path, {f"{folder}/dataset_info.json": b"{}"})
    cells = [Cell("imagenet_c", "fog", severity) for severity in (1, 2, 3)]
    cells.append(Cell("imagenet_r"))
    found = choose_provenances(cells, data_root=tmp_path)
    assert found == {"imagenet_c": chosen, "imagenet_r": "official"}
