"""TFDS sets through TFDS's real imagenet2012 builder, fed with small tars."""

import io
import json
import multiprocessing
import operator
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tar_files import make_tar

from lska_jax.commands.prepare import main
from lska_jax.data.opening import inspect_source, open_source
from lska_jax.data.sources import Record, SourceFacts, share_examples

WNIDS = ("n01440764", "n01443537", "n15075141")
LABELS = {"n01440764": 0, "n01443537": 1, "n15075141": 999}


def make_jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return encoded.getvalue()


TRAIN = {f"{w}_{i}.JPEG": make_jpeg(10 * LABELS[w] + i) for w in WNIDS for i in range(4)}
VALIDATION = {f"ILSVRC2012_val_{i:08}.JPEG": make_jpeg(50_000 + i) for i in range(1, 6)}
TEST = {f"ILSVRC2012_test_{i:08}.JPEG": make_jpeg(60_000 + i) for i in range(1, 3)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    manual = tmp_path_factory.mktemp("manual")
    of_class = {f"{w}.tar": make_tar({n: c for n, c in TRAIN.items() if w in n}) for w in WNIDS}
    (manual / "ILSVRC2012_img_train.tar").write_bytes(make_tar(of_class))
    (manual / "ILSVRC2012_img_val.tar").write_bytes(make_tar(VALIDATION))
    (manual / "ILSVRC2012_img_test.tar").write_bytes(make_tar(TEST))
    prepared = tmp_path_factory.mktemp("prepared")
    assert main(["imagenet2012", "--manual_dir", str(manual), "--data_dir", str(prepared)]) == 0
    return str(prepared)


@pytest.fixture
def own_copy(data_dir, tmp_path) -> Path:
    """The prepared folder, to be changed by one test."""
    folder = tmp_path / "imagenet2012" / "5.1.0"
    shutil.copytree(Path(data_dir) / "imagenet2012" / "5.1.0", folder)
    return folder


def change_json(file: Path, **changes) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    content = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(content))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3_000])


def test_every_image_comes_back_with_its_bytes_and_label(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    read = {source.path(i).partition("(")[2].rstrip(")"): source[i] for i in range(len(source))}
    assert read == {n: Record(c, LABELS[n.partition("_")[0]]) for n, c in TRAIN.items()}


def test_validation_labels_are_those_of_the_official_list(data_dir):
    source = open_source("tfds:imagenet2012", split="validation", data_dir=data_dir)
    by_file = {source.path(i)[-29:-1]: source.class_names[source[i].label] for i in range(5)}
    # The first five lines of the list that the builder carries.
    assert by_file == {
        "ILSVRC2012_val_00000001.JPEG": "n01751748",
        "ILSVRC2012_val_00000002.JPEG": "n09193705",
        "ILSVRC2012_val_00000003.JPEG": "n02105855",
        "ILSVRC2012_val_00000004.JPEG": "n04263257",
        "ILSVRC2012_val_00000005.JPEG": "n03125729",
    }


def test_class_names_are_the_thousand_wnids_in_order(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    assert len(source.class_names) == 1000
    assert list(source.class_names) == sorted(source.class_names)


def test_paths_name_the_set_the_split_the_index_and_the_file(data_dir):
    source = open_source("tfds:imagenet2012:5.1.0", split="train", data_dir=data_dir)
    assert source.path(3).startswith("tfds:imagenet2012:5.1.0/train#3 (n")


def test_another_feature_is_read_as_whole_numbers(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    assert source.integers(3, "label") == (source[3].label,)


def test_a_feature_that_the_set_lacks_is_refused(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    with pytest.raises(ValueError, match="train#3 .*has no feature 'real_label'"):
        source.integers(3, "real_label")


SLICES = (
    *("train", "train[:50%]", "train[33%:66%]", "train[-3:]", "train[:-2]", "train[2:7]"),
    *(
        "train[0shard]",
        "train[-50%:]",
        "train[:33.4%]+validation",
        "train + validation[1:3]",
        "all",
    ),
)


@pytest.mark.parametrize("split", SLICES)
def test_slices_are_counted_as_tfds_counts_them(split, data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(f"{data_dir}/imagenet2012/5.1.0")
    expected = len(builder.as_data_source(split))
    assert inspect_source("tfds:imagenet2012", split=split, data_dir=data_dir) == SourceFacts(
        num_classes=1000, num_examples=expected
    )


def test_a_slice_reads_those_examples(data_dir):
    everything = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    part = open_source("tfds:imagenet2012", split="train[25%:75%]", data_dir=data_dir)
    assert [part[i] for i in range(len(part))] == [everything[i] for i in range(3, 9)]


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        ("train[:50%]", "train[50%:]", False),
        ("train[:50%]", "train[40%:]", True),
        ("train[:50%]", "validation", False),
        ("validation", "train+validation", True),
    ],
)
def test_slices_of_a_set_know_whether_they_share_examples(first, second, is_shared, data_dir):
    sources = [
        open_source("tfds:imagenet2012", split=name, data_dir=data_dir) for name in (first, second)
    ]
    assert share_examples(*sources) == is_shared


def test_a_tfds_source_travels_to_a_spawned_process(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    here = [source[i] for i in range(3)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(operator.getitem, [(source, i) for i in range(3)]) == here


def test_threads_read_the_same_examples(data_dir):
    source = open_source("tfds:imagenet2012", split="train", data_dir=data_dir)
    order = list(range(len(source))) * 50
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.__getitem__, order))
    assert read == [source[index] for index in order]


def test_preparing_and_reading_never_import_tensorflow(data_dir):
    open_source("tfds:imagenet2012", split="train", data_dir=data_dir)[0]
    assert "tensorflow" not in sys.modules


def test_inspecting_a_set_does_not_import_tfds(data_dir):
    program = (
        "import sys; from lska_jax.data.opening import inspect_source\n"
        f"inspect_source('tfds:imagenet2012', split='train[:50%]', data_dir={data_dir!r})\n"
        "print('tensorflow_datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_default_folder_follows_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert inspect_source("tfds:imagenet2012", split="train").num_examples == len(TRAIN)


def test_the_highest_version_is_read_by_number(own_copy, tmp_path):
    shutil.copytree(own_copy, own_copy.with_name("5.10.0"))
    source = open_source("tfds:imagenet2012:5.*.*", split="train", data_dir=str(tmp_path))
    assert source.name == "tfds:imagenet2012:5.10.0/train"


def test_the_only_config_is_read_without_naming_it(own_copy, tmp_path):
    shutil.copytree(own_copy, tmp_path / "other" / "plain" / "1.0.0")
    facts = inspect_source("tfds:other", split="train", data_dir=str(tmp_path))
    assert facts == inspect_source("tfds:other/plain:1.0.0", split="train", data_dir=str(tmp_path))


def test_several_configs_without_a_default_have_to_be_chosen_from(own_copy, tmp_path):
    for config in ("a", "b"):
        shutil.copytree(own_copy, tmp_path / "other" / config / "1.0.0")
    with pytest.raises(ValueError, match="configs a, b; choose one as 'tfds:other/CONFIG'"):
        inspect_source("tfds:other", split="train", data_dir=str(tmp_path))


def test_without_supervised_keys_the_only_image_and_label_are_used(own_copy, tmp_path):
    change_json(own_copy / "dataset_info.json", supervisedKeys=None)
    source = open_source("tfds:imagenet2012", split="train", data_dir=str(tmp_path))
    assert source[0].image in TRAIN.values()


def test_a_set_without_labels_is_refused(own_copy, tmp_path):
    features = json.loads((own_copy / "features.json").read_text())
    del features["featuresDict"]["features"]["label"]
    (own_copy / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match="no image classification set"):
        inspect_source("tfds:imagenet2012", split="train", data_dir=str(tmp_path))


def test_a_split_with_labels_out_of_range_is_refused_on_opening(data_dir):
    with pytest.raises(ValueError, match="ILSVRC2012_test_.*label -1, outside 0..999"):
        open_source("tfds:imagenet2012", split="test", data_dir=data_dir)


@pytest.mark.parametrize("place", [0.001, 0.01, 0.02])
def test_a_damaged_shard_is_an_error_that_names_it(place, own_copy, tmp_path):
    shard = own_copy / "imagenet2012-train.array_record-00000-of-00001"
    content = bytearray(shard.read_bytes())
    start = int(place * len(content))
    content[start : start + 20] = bytes(byte ^ 0x55 for byte in content[start : start + 20])
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"{shard} cannot be read|{own_copy} cannot be opened"):
        source = open_source("tfds:imagenet2012", split="train", data_dir=str(tmp_path))
        [source[index] for index in range(len(source))]


@pytest.mark.parametrize("change", [lambda shard: shard.unlink(), lambda shard: truncate(shard)])
def test_a_missing_or_truncated_shard_is_named_at_the_start(change, own_copy, tmp_path):
    shard = own_copy / "imagenet2012-train.array_record-00000-of-00001"
    change(shard)
    with pytest.raises(ValueError, match=f"{shard} (is missing|cannot be read)"):
        open_source("tfds:imagenet2012", split="train", data_dir=str(tmp_path))


def test_a_description_of_more_examples_than_there_are_is_found_at_the_start(own_copy, tmp_path):
    splits = [{"name": "train", "shardLengths": ["13"]}]
    splits[0]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    change_json(own_copy / "dataset_info.json", splits=splits)
    with pytest.raises(ValueError, match="train.array_record.* cannot be read at .*#12"):
        open_source("tfds:imagenet2012", split="train", data_dir=str(tmp_path))


@pytest.mark.parametrize("read", [open_source, inspect_source])
class TestRefusals:
    def test_a_missing_split_lists_those_that_exist(self, read, data_dir):
        with pytest.raises(ValueError, match="no split 'val'.*train, validation, test"):
            read("tfds:imagenet2012", split="val", data_dir=data_dir)

    def test_a_set_that_is_not_prepared_names_the_command(self, read, data_dir):
        command = f"lska-jax prepare tfds cifar10 --data_dir {data_dir}"
        with pytest.raises(ValueError, match=f"not prepared.*{command}"):
            read("tfds:cifar10", split="train", data_dir=data_dir)

    def test_imagenet_that_is_not_prepared_names_its_own_command(self, read, tmp_path):
        command = "lska-jax prepare imagenet2012 --manual_dir"
        with pytest.raises(ValueError, match=f"not prepared.*{command}"):
            read("tfds:imagenet2012", split="train", data_dir=str(tmp_path))

    def test_a_version_that_is_not_prepared_lists_those_that_are(self, read, data_dir):
        with pytest.raises(ValueError, match=r"'imagenet2012:4.0.0' is not.*version 5.1.0"):
            read("tfds:imagenet2012:4.0.0", split="train", data_dir=data_dir)

    def test_a_tfrecord_set_is_refused_with_the_command_that_converts_it(
        self, read, own_copy, tmp_path
    ):
        change_json(own_copy / "dataset_info.json", fileFormat="tfrecord")
        command = f"lska-jax prepare convert imagenet2012:5.1.0 --data_dir {tmp_path}"
        with pytest.raises(ValueError, match=f"prepared as tfrecord.*{command}"):
            read("tfds:imagenet2012", split="train", data_dir=str(tmp_path))

    @pytest.mark.parametrize(
        "split", ["train[", "train[a:]", "train[3]", "train[:99]", "train[5:2]"]
    )
    def test_a_slice_that_makes_no_sense_is_refused(self, read, split, data_dir):
        with pytest.raises(ValueError, match="split|slice|shard"):
            read("tfds:imagenet2012", split=split, data_dir=data_dir)

    def test_a_malformed_name_says_how_to_write_one(self, read, data_dir):
        with pytest.raises(ValueError, match="write NAME"):
            read("tfds:image net", split="train", data_dir=data_dir)
