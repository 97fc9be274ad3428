"""TFDS sets as a source: ArrayRecord files read without TensorFlow.

A prepared set is a folder ``DATA_DIR/NAME[/CONFIG]/VERSION`` with ``dataset_info.json``,
``features.json`` and the shards. It is found and checked through those two files alone, so a config
check needs no TFDS, a set prepared elsewhere needs no builder code, and nothing asks the network.

Source: https://www.tensorflow.org/datasets/data_source and .../external_tfrecord (folder layout).
"""

import contextlib
import fnmatch
import itertools
import json
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.data.class_folders import readable
from lska_jax.data.sources import Extent, MissingSplit, Record, SourceFacts, check_index
from lska_jax.data.split_slices import Slice, parse_slices, refuse_seed, slice_bounds
from lska_jax.data.tfds_description import PreparedSet, read_description

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>[\w.*]+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def inspect_tfds(location: str, *, split: str, data_dir: str | None = None) -> SourceFacts:
    """Count classes and examples from the set's JSON files.

    Args:
      location: ``NAME[/CONFIG][:VERSION]``.
      split: a split or a slice of it.
      data_dir: where sets are prepared; ``None`` is TFDS's default.

    Raises:
      ValueError: if the set is not prepared as ArrayRecord, is no image classification set, or
        lacks the split.
    """
    prepared = find_prepared(location, data_dir=data_dir)
    refuse_unreadable_format(prepared, data_dir=data_dir)
    return SourceFacts(len(prepared.class_names), count_examples(prepared, split))


class TfdsSource:
    """One split of an image classification set, its images still encoded."""

    def __init__(self, location: str, *, split: str, data_dir: str | None = None) -> None:
        """Find the set, and read its first and last labels.

        Args:
          location: ``NAME[/CONFIG][:VERSION]``; without a version, the highest one prepared.
          split: a split or a slice of it, in TFDS's syntax: ``train[:80%]``, ``train+test``.
          data_dir: where sets are prepared; ``None`` is TFDS's default.

        Raises:
          ValueError: as ``inspect_tfds``, or if the split carries no labels.
        """
        self._prepared = find_prepared(location, data_dir=data_dir)
        refuse_unreadable_format(self._prepared, data_dir=data_dir)
        self.extents = find_extents(self._prepared, split)
        self._length = sum(extent.end - extent.begin for extent in self.extents)
        self._split = split
        self.name = f"tfds:{self._prepared.full_name}/{split}"
        self.class_names = self._prepared.class_names
        self._records: _Records | None = None
        self._lock = threading.Lock()
        # A split without labels has -1 everywhere: found here, not hours later.
        for index in (0, self._length - 1):
            self[index]

    def __len__(self) -> int:
        """Return the number of examples."""
        return self._length

    def __getitem__(self, index: int) -> Record:
        """Return the encoded image ``index`` and its label.

        Raises:
          ValueError: if the label is outside [0, number of classes).
        """
        check_index(index, len(self), self.name)
        feature = self._read(index)
        images = feature[self._prepared.image_key].bytes_list.value
        labels = feature[self._prepared.label_key].int64_list.value
        if not images or not labels:
            raise ValueError(f"{self._describe(index, feature)} has no image or no label.")
        if not 0 <= labels[0] < len(self.class_names):
            raise ValueError(
                f"{self._describe(index, feature)} has label {labels[0]}, outside "
                f"0..{len(self.class_names) - 1}; choose a split with labels."
            )
        return Record(images[0], labels[0])

    def path(self, index: int) -> str:
        """Return ``tfds:name/split#index``, with the file name where the set stores it."""
        check_index(index, len(self), self.name)
        return self._describe(index, self._read(index) if self._prepared.has_file_name else {})

    def integers(self, index: int, key: str) -> tuple[int, ...]:
        """Return another feature of example ``index``: whole numbers, as many as it holds.

        Args:
          index: the example.
          key: name of the feature, e.g. ``real_label``.

        Raises:
          ValueError: if the set has no such feature.
        """
        check_index(index, len(self), self.name)
        feature = self._read(index)
        # An empty sequence may be left out of the record altogether.
        if key not in feature and key not in self._prepared.feature_keys:
            raise ValueError(f"{self._describe(index, feature)} has no feature {key!r}.")
        return tuple(feature[key].int64_list.value)

    def _describe(self, index: int, feature: Mapping[str, Any]) -> str:
        where = f"{self.name}#{index}"
        if self._prepared.has_file_name and (name := feature["file_name"].bytes_list.value):
            where += f" ({readable(os.fsdecode(name[0]))})"
        return where

    def _read(self, index: int) -> Mapping[str, Any]:
        """Parse example ``index``, a tf.Example, into its features by name."""
        from tensorflow_datasets.proto import tf_example_pb2

        records = self._open()
        try:
            record = records.source[int(index)]
            return tf_example_pb2.Example.FromString(record).features.feature
        # The readers of ArrayRecord and protobuf have many errors for what is damaged.
        except Exception as error:
            raise ValueError(
                f"{records.file_of(index)} cannot be read at {self.name}#{index}: "
                f"{_first_line(error)}. Copy the set again, or prepare it anew."
            ) from error

    def _open(self) -> "_Records":
        if self._records is None:
            with self._lock:
                if self._records is None:
                    self._records = _open_records(self._prepared, self._split)
        return self._records

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what finds the files, but neither the open files nor the lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_records", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; the files are opened again on first use."""
        self.__dict__.update(state, _records=None, _lock=threading.Lock())


def default_data_dir() -> Path:
    """Return where TFDS prepares sets unless told otherwise."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(location: str, *, data_dir: str | None = None) -> PreparedSet:
    """Find a prepared set, in any file format, and read its description.

    Args:
      location: ``NAME[/CONFIG][:VERSION]``; ``VERSION`` may have wildcards, as in ``3.*.*``.
      data_dir: where sets are prepared; ``None`` is TFDS's default.

    Raises:
      ValueError: if it is not there, or is no image classification set.
    """
    match = _NAME.fullmatch(location)
    if match is None:
        raise ValueError(
            f"Cannot read {location!r} as a TFDS set; write NAME[/CONFIG][:VERSION], "
            "such as 'imagenet2012:5.1.0'."
        )
    name, config, version = match["name"], match["config"], match["version"]
    root = Path(data_dir).expanduser() if data_dir else default_data_dir()
    base = root / name / config if config else _choose_config(root / name)
    versions = _versions_in(base)
    matching = [v for v in versions if fnmatch.fnmatch(v, version or "*")]
    if not matching:
        found = f" (found version {', '.join(versions)})" if versions else ""
        raise ValueError(
            f"The TFDS set {location!r} is not prepared in {root}{found}; "
            f"prepare it with: {prepare_command(location, data_dir=data_dir)}"
        )
    folder = base / matching[-1]
    full_name = f"{folder.parent.relative_to(root).as_posix()}:{folder.name}"
    return read_description(folder, full_name)


def prepare_command(location: str, *, data_dir: str | None = None) -> str:
    """Return the shell command that prepares a set as ArrayRecord."""
    where = f" --data_dir {data_dir}" if data_dir else ""
    if re.split("[/:]", location)[0] == "imagenet2012":
        return f"lska-jax prepare imagenet2012 --manual_dir DIR_WITH_THE_TARS{where}"
    return f"lska-jax prepare tfds {location}{where}"


def refuse_unreadable_format(prepared: PreparedSet, *, data_dir: str | None = None) -> None:
    """Refuse a set without ArrayRecord shards, with the command that makes them.

    Raises:
      ValueError: if there are none.
    """
    if "array_record" in prepared.formats:
        return
    where = f" --data_dir {data_dir}" if data_dir else ""
    raise ValueError(
        f"{prepared.folder} is prepared as {', '.join(sorted(prepared.formats))}, which allows no "
        "random access; convert it once with: "
        f"lska-jax prepare convert {prepared.full_name}{where}"
    )


def find_extents(prepared: PreparedSet, split: str) -> tuple[Extent, ...]:
    """Return which examples a split or its slices are, counted as TFDS counts them.

    Raises:
      ValueError: if the split is unknown, cannot be read, or has no example.
    """
    parts = [Slice(name) for name in prepared.shard_lengths]
    if split != "all":
        parts = parse_slices(split)
        refuse_seed(parts, f"tfds:{prepared.full_name}")
    extents = []
    for part in parts:
        if part.split not in prepared.shard_lengths:
            raise MissingSplit(
                f"{prepared.full_name} has no split {part.split!r}; "
                f"its splits are: {', '.join(prepared.shard_lengths)} ({prepared.folder})."
            )
        begin, end = slice_bounds(part, prepared.shard_lengths[part.split])
        extents.append(Extent(f"tfds:{prepared.full_name}/{part.split}", begin, end))
    if all(extent.begin == extent.end for extent in extents):
        raise ValueError(f"{prepared.folder}: the split {split!r} has no examples.")
    return tuple(extents)


def count_examples(prepared: PreparedSet, split: str) -> int:
    """Count the examples of a split or slice; errors are those of ``find_extents``."""
    return sum(extent.end - extent.begin for extent in find_extents(prepared, split))


def _choose_config(base: Path) -> Path:
    """Return the folder of versions: the set's own, or that of its default or only config."""
    if _versions_in(base) or not base.is_dir():
        return base
    configs = sorted(entry.name for entry in base.iterdir() if _versions_in(entry))
    chosen = configs[0] if len(configs) == 1 else ""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError, RecursionError):
        named = json.loads((base / ".config/metadata.json").read_text())["default_config_name"]
        chosen = str(named)
    if configs and chosen not in configs:
        raise ValueError(
            f"{base} holds the configs {', '.join(configs)}; "
            f"choose one as 'tfds:{base.name}/CONFIG'."
        )
    return base / chosen if chosen else base


def _versions_in(base: Path) -> list[str]:
    """List the prepared versions, lowest first."""
    if not base.is_dir():
        return []
    found = [e.name for e in base.iterdir() if _VERSION.fullmatch(e.name)]
    found = [name for name in found if (base / name / "dataset_info.json").is_file()]
    return sorted(found, key=lambda name: [int(number) for number in name.split(".")])


class _Records(NamedTuple):
    """The records of a split, and the files that they lie in.

    Attributes:
      source: gives the bytes of a record.
      files: paths of the shards that are read.
      ends: how many records there are up to the end of each.
    """

    source: Any
    files: Sequence[str]
    ends: Sequence[int]

    def file_of(self, index: int) -> str:
        """Return the shard that record ``index`` lies in."""
        return self.files[min(bisect_right(self.ends, index), len(self.files) - 1)]


def _open_records(prepared: PreparedSet, split: str) -> _Records:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(prepared.folder)
        # Undecoded: decoding costs time, and some features cannot be decoded without TensorFlow.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw)
        shards = builder.info.splits[split].file_instructions
    # TFDS checks little of what it reads, and meets damage with any error.
    except Exception as error:
        raise ValueError(
            f"{prepared.folder} cannot be opened: {_first_line(error)}. Copy the set again, or "
            "prepare it anew."
        ) from error
    files = [str(shard.filename) for shard in shards]
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise ValueError(
            f"{missing[0]} is missing, and {len(missing) - 1} more. Copy the set again, or prepare "
            "it anew."
        )
    counts = (shard.examples_in_shard if shard.take < 0 else shard.take for shard in shards)
    return _Records(source, files, list(itertools.accumulate(counts)))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
