"""The preparation command: TFDS's real builders without TensorFlow, and TFRecord conversion."""

import io
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tar_files import make_tar
from tensorflow_datasets.core import shuffle

from lska_jax.commands.prepare import main
from lska_jax.data.opening import open_source
from lska_jax.data.sources import Record, Source
from lska_jax.data.tfrecord import crc32c, read_tfrecords

# Two that TFDS's builder repairs: a CMYK JPEG and a PNG, by their names in ImageNet.
CMYK_NAME = "n01739381_1309.JPEG"
PNG_NAME = "n02105855_2933.JPEG"
COLOUR = (200, 120, 40)


def encode(image: Image.Image, form: str) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form)
    return encoded.getvalue()


def make_photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "JPEG")


TRAIN = {
    "n01739381.tar": {
        # Cyan, magenta and yellow without black are the complement of the colour.
        CMYK_NAME: encode(Image.new("CMYK", (8, 8), (*(255 - c for c in COLOUR), 0)), "JPEG"),
        "n01739381_1.JPEG": make_photo(1),
    },
    "n02105855.tar": {
        PNG_NAME: encode(Image.new("RGB", (8, 8), COLOUR), "PNG"),
        "n02105855_1.JPEG": make_photo(2),
    },
}
VALIDATION = {f"ILSVRC2012_val_{i:08}.JPEG": make_photo(100 + i) for i in range(1, 4)}


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    train = make_tar({name: make_tar(files) for name, files in TRAIN.items()})
    (folder / "ILSVRC2012_img_train.tar").write_bytes(train)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(make_tar(VALIDATION))
    return folder


@pytest.fixture(scope="module")
def prepared(manual_dir, tmp_path_factory) -> Path:
    """A data folder with imagenet2012 as ArrayRecord."""
    folder = tmp_path_factory.mktemp("prepared")
    assert run("imagenet2012", manual_dir=manual_dir, data_dir=folder) == 0
    return folder


@pytest.fixture
def as_tfrecord(prepared, tmp_path) -> Path:
    """The same set the way TFDS prepares it by default, under another data folder."""
    original = prepared / "imagenet2012" / "5.1.0"
    folder = tmp_path / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    for file in original.glob("*.[jt]*"):
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    builder = tfds.builder_from_directory(original)
    for split in info["splits"]:
        records = builder.as_data_source(
            split["name"], deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        # Two shards, so that their order and lengths matter.
        parts = [list(records)[:2], list(records)[2:]]
        split["shardLengths"] = [str(len(part)) for part in parts]
        for index, part in enumerate(parts):
            name = f"imagenet2012-{split['name']}.tfrecord-{index:05}-of-00002"
            (folder / name).write_bytes(b"".join(frame(bytes(record)) for record in part))
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def run(command: str, *names: str, **options: Path) -> int:
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return main([command, *names, *flags])


def read_by_file_name(source: Source) -> dict[str, Record]:
    return {source.path(i).partition("(")[2][:-1]: source[i] for i in range(len(source))}


def crc32c_bit_by_bit(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """Frame a record as TFRecord does, with checksums of our own."""

    def masked(data: bytes) -> bytes:
        crc = crc32c_bit_by_bit(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- imagenet2012


def test_photos_are_stored_byte_for_byte(prepared):
    read = read_by_file_name(
        open_source("tfds:imagenet2012", split="train", data_dir=str(prepared))
    )
    photo = TRAIN["n01739381.tar"]["n01739381_1.JPEG"]
    assert read["n01739381_1.JPEG"].image == photo


@pytest.mark.parametrize("name", [CMYK_NAME, PNG_NAME])
def test_images_in_the_wrong_format_become_rgb_jpegs_of_the_same_colour(name, prepared):
    read = read_by_file_name(
        open_source("tfds:imagenet2012", split="train", data_dir=str(prepared))
    )
    image = Image.open(io.BytesIO(read[name].image))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    # CMYK is stored as JPEG twice: each rounds its three colour channels by up to 2 levels.
    np.testing.assert_allclose(np.asarray(image), np.full((8, 8, 3), COLOUR), atol=4)


def test_a_set_too_large_for_memory_is_shuffled_through_files(manual_dir, tmp_path, monkeypatch):
    # TFDS's limit of 1 GB, which real ImageNet passes; what lies beyond it opens files of its own.
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    assert run("imagenet2012", manual_dir=manual_dir, data_dir=tmp_path) == 0
    source = open_source("tfds:imagenet2012", split="validation", data_dir=str(tmp_path))
    assert {name: r.image for name, r in read_by_file_name(source).items()} == VALIDATION


def test_preparing_again_changes_nothing(prepared, manual_dir):
    folder = prepared / "imagenet2012" / "5.1.0"
    before = snapshot(folder)
    assert run("imagenet2012", manual_dir=manual_dir, data_dir=prepared) == 0
    assert snapshot(folder) == before


def test_the_stand_in_for_tensorflow_is_gone_afterwards(prepared):
    from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow

    assert "_module" not in vars(tensorflow)
    assert "tensorflow" not in sys.modules


def test_missing_tars_are_named_with_their_size_and_where_to_get_them(tmp_path, capsys):
    assert run("imagenet2012", manual_dir=tmp_path) == 2
    error = capsys.readouterr().err
    assert "lacks ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in error
    assert "138 GiB" in error
    assert "https://image-net.org/download-images" in error


def test_one_missing_tar_is_named_alone(manual_dir, tmp_path, capsys):
    shutil.copy(manual_dir / "ILSVRC2012_img_train.tar", tmp_path)
    assert run("imagenet2012", manual_dir=tmp_path) == 2
    assert "lacks ILSVRC2012_img_val.tar. " in capsys.readouterr().err


def test_a_tar_that_is_an_error_page_is_refused(tmp_path, capsys):
    for name in ("train", "val"):
        (tmp_path / f"ILSVRC2012_img_{name}.tar").write_text("<html>please log in</html>")
    assert run("imagenet2012", manual_dir=tmp_path) == 2
    assert "train.tar is not a readable tar" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    manual_dir, tmp_path, capsys
):
    huge = tmp_path / "manual"
    shutil.copytree(manual_dir, huge)
    # A sparse file: 8 TiB of nothing after the archive's end, more than disks have free.
    os.truncate(huge / "ILSVRC2012_img_val.tar", 1 << 43)
    assert run("imagenet2012", manual_dir=huge, data_dir=tmp_path / "data") == 2
    assert "are needed" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_set_that_is_there_as_tfrecord_is_not_prepared_over(as_tfrecord, manual_dir, capsys):
    data_dir = as_tfrecord.parents[1]
    assert run("imagenet2012", manual_dir=manual_dir, data_dir=data_dir) == 2
    assert "prepare convert imagenet2012:5.1.0" in capsys.readouterr().err


# --- any other set


class ThreeColours(tfds.core.GeneratorBasedBuilder):
    """A builder that gives arrays, as those of MNIST and CIFAR-10 do."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for label in range(3):
            yield label, {"image": 255 * np.eye(3, dtype=np.uint8)[label] * pixel(), "label": label}


def pixel() -> np.ndarray:
    return np.ones((4, 4, 1), np.uint8)


def test_a_builder_that_gives_arrays_is_stored_without_loss(tmp_path):
    assert run("tfds", "three_colours", data_dir=tmp_path) == 0
    source = open_source("tfds:three_colours", split="train", data_dir=str(tmp_path))
    assert source.class_names == ("red", "green", "blue")
    for index in range(3):
        image = np.asarray(Image.open(io.BytesIO(source[index].image)))
        np.testing.assert_array_equal(image, 255 * np.eye(3)[source[index].label] * pixel())


def test_an_unknown_set_suggests_a_known_one(tmp_path, capsys):
    assert run("tfds", "imagenet2013", data_dir=tmp_path) == 2
    assert "knows no set 'imagenet2013'. Did you mean imagenet2012" in capsys.readouterr().err


# --- conversion


def test_a_converted_set_reads_like_the_original(as_tfrecord, prepared):
    data_dir = as_tfrecord.parents[1]
    assert run("convert", "imagenet2012", data_dir=data_dir) == 0
    for split in ("train", "validation"):
        converted = open_source("tfds:imagenet2012", split=split, data_dir=str(data_dir))
        original = open_source("tfds:imagenet2012", split=split, data_dir=str(prepared))
        assert [converted[i] for i in range(len(converted))] == [
            original[i] for i in range(len(original))
        ]


def test_conversion_keeps_tfrecord_as_the_main_format(as_tfrecord):
    before = snapshot(as_tfrecord)
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 0
    after = snapshot(as_tfrecord)
    kept = {name: content for name, content in before.items() if name != "dataset_info.json"}
    assert kept.items() <= after.items()
    info = json.loads(after["dataset_info.json"])
    assert (info["fileFormat"], info["alternativeFileFormats"]) == ("tfrecord", ["array_record"])


def test_conversion_leaves_nothing_unfinished_behind(as_tfrecord):
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 0
    assert os.listdir(as_tfrecord.parent) == ["5.1.0"]


def test_tfds_itself_reads_the_converted_set(as_tfrecord):
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 0
    assert len(tfds.builder_from_directory(as_tfrecord).as_data_source("train")) == 4


def test_converting_twice_changes_nothing(as_tfrecord):
    data_dir = as_tfrecord.parents[1]
    assert run("convert", "imagenet2012", data_dir=data_dir) == 0
    before = snapshot(as_tfrecord)
    assert run("convert", "imagenet2012", data_dir=data_dir) == 0
    assert snapshot(as_tfrecord) == before


def damage(file: Path, position: int) -> bytes:
    """Flip one bit, and return the sound content."""
    sound = file.read_bytes()
    broken = bytearray(sound)
    broken[position] ^= 1
    file.write_bytes(broken)
    return sound


def test_a_flipped_bit_stops_the_conversion_and_leaves_the_set_as_it_was(as_tfrecord, capsys):
    damage(as_tfrecord / "imagenet2012-validation.tfrecord-00001-of-00002", 40)
    before = snapshot(as_tfrecord)
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 2
    assert "validation.tfrecord-00001-of-00002 is broken at byte 0" in capsys.readouterr().err
    assert snapshot(as_tfrecord) == before


def test_an_interrupted_conversion_keeps_its_complete_shards(as_tfrecord):
    last = as_tfrecord / "imagenet2012-validation.tfrecord-00001-of-00002"
    sound = damage(last, 40)
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 2
    last.write_bytes(sound)
    # Were they converted again, the first shard's damage would stop this run.
    damage(as_tfrecord / "imagenet2012-train.tfrecord-00000-of-00002", 40)
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 0


def test_a_shard_with_too_few_examples_is_refused(as_tfrecord, capsys):
    shard = as_tfrecord / "imagenet2012-train.tfrecord-00000-of-00002"
    shard.write_bytes(frame(next(read_tfrecords(shard))))
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 2
    assert "gave 1 examples, its set lists 2" in capsys.readouterr().err


def test_a_missing_shard_is_named(as_tfrecord, capsys):
    (as_tfrecord / "imagenet2012-train.tfrecord-00001-of-00002").unlink()
    assert run("convert", "imagenet2012", data_dir=as_tfrecord.parents[1]) == 2
    assert "train.tfrecord-00001-of-00002 is missing" in capsys.readouterr().err


def test_converting_a_set_that_is_not_there_is_an_error(tmp_path, capsys):
    assert run("convert", "cifar10", data_dir=tmp_path) == 2
    assert "'cifar10' is not prepared" in capsys.readouterr().err


# --- TFRecord


def test_the_checksum_of_the_standard_check_string():
    # The check value of CRC-32C in RFC 3720 and in every catalogue of checksums.
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 1019, 1020, 1021, 1024, 2044, 2045, 5000])
def test_checksums_are_those_of_the_bitwise_definition(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == crc32c_bit_by_bit(data)


def test_records_of_any_length_are_read_back(tmp_path):
    records = [b"", b"a", b"b" * 3000]
    (tmp_path / "a.tfrecord").write_bytes(b"".join(map(frame, records)))
    assert list(read_tfrecords(tmp_path / "a.tfrecord")) == records


@pytest.mark.parametrize("kept", [30, 24, 17, 5])
def test_a_file_that_is_cut_short_is_broken_where_its_record_begins(kept, tmp_path):
    content = frame(b"first") + frame(b"second")
    (tmp_path / "a.tfrecord").write_bytes(content[:kept])
    begin = len(frame(b"first")) if kept > len(frame(b"first")) else 0
    with pytest.raises(ValueError, match=f"broken at byte {begin}"):
        list(read_tfrecords(tmp_path / "a.tfrecord"))


def test_a_damaged_length_is_not_believed(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame(b"record"))
    damage(path, 7)
    with pytest.raises(ValueError, match="broken at byte 0"):
        list(read_tfrecords(path))
