"""The description of a prepared TFDS set: what its JSON files say, checked before it is used.

Files may be damaged: every value is checked for its type and for sense, so that a wrong one is an
error that names the file, and none asks for more memory than there is.

Source: https://www.tensorflow.org/datasets/external_tfrecord (folder layout).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

# Far more than any set has: ImageNet-21k has 2,048 shards of train and 21,841 classes.
_MAX_FILE_BYTES = 64 << 20
_MAX_CLASSES = 10_000_000
_MAX_EXAMPLES = 1 << 40

T = TypeVar("T")


class PreparedSet(NamedTuple):
    """What the files of a prepared TFDS set say about it.

    Attributes:
      folder: ``DATA_DIR/NAME[/CONFIG]/VERSION``.
      full_name: ``NAME[/CONFIG]:VERSION``.
      formats: file formats of the shards, e.g. ``{"tfrecord"}``.
      shard_lengths: for each split, the number of examples in each shard.
      image_key: name of the image feature.
      label_key: name of the label feature.
      class_names: name of each class; numbers where the set gives no names.
      has_file_name: whether there is a feature ``file_name``.
      feature_keys: names of all features.
    """

    folder: Path
    full_name: str
    formats: frozenset[str]
    shard_lengths: Mapping[str, tuple[int, ...]]
    image_key: str
    label_key: str
    class_names: tuple[str, ...]
    has_file_name: bool
    feature_keys: frozenset[str] = frozenset()


def read_description(folder: Path, full_name: str) -> PreparedSet:
    """Read ``dataset_info.json``, ``features.json`` and the names of the classes.

    Args:
      folder: of the set.
      full_name: of the set.

    Raises:
      ValueError: a file is missing, cannot be read or says what makes no sense; it is named. Or
        the set is no image classification set.
    """
    info, features = _Json(folder / "dataset_info.json"), _Json(folder / "features.json")
    by_key = features.get(features.content, "featuresDict", dict, default={})
    by_key = features.get(by_key, "features", dict, default={})
    kinds = {
        key: features.get(features.get(by_key, key, dict), "pythonClassName", str, default="")
        for key in by_key
    }
    image_key, label_key = _find_keys(info, kinds, full_name)
    label = features.get(by_key[label_key], "classLabel", dict, default={})
    num_classes = features.whole_number(label.get("numClasses", 0), "numClasses", _MAX_CLASSES)
    # Sets prepared before TFDS wrote the format down are TFRecord.
    formats = [info.get(info.content, "fileFormat", str, default="tfrecord")]
    formats += info.strings(info.content, "alternativeFileFormats")
    return PreparedSet(
        folder=folder,
        full_name=full_name,
        formats=frozenset(formats),
        shard_lengths=_shard_lengths(info),
        image_key=image_key,
        label_key=label_key,
        class_names=_class_names(folder, label_key, num_classes),
        has_file_name=kinds.get("file_name", "").endswith(".Text"),
        feature_keys=frozenset(kinds),
    )


class _Json:
    """A JSON file whose values are asked for by their type."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.parent
        try:
            self.content = json.loads(_read_text(path))
        except (ValueError, RecursionError) as error:
            self.fail(str(error) or type(error).__name__)
        self._check(self.content, "the whole", dict)

    def get(self, group: Any, key: str, kind: type[T], *, default: T | None = None) -> T:
        """Return a value of a group, of this type."""
        if key not in group and default is not None:
            return default
        return self._check(group.get(key), key, kind)

    def strings(self, group: Any, key: str) -> list[str]:
        """Return a list of strings; [] where there is none."""
        return [self._check(item, key, str) for item in self.get(group, key, list, default=[])]

    def whole_number(self, value: Any, name: str, most: int) -> int:
        """Return a whole number, which protobuf's JSON writes as text."""
        is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
        # Digits of ASCII: int() takes others, and spaces.
        text = str(value) if is_number else ""
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
            self.fail(f"{name} is {_short(value)}, and should be a whole number up to {most:,}")
        return int(text)

    def fail(self, reason: str) -> Any:
        """Raise the error of this file."""
        raise ValueError(
            f"{self._path} is damaged: {reason}. Copy the set again, or prepare it anew."
        )

    def _check(self, value: Any, name: str, kind: type[T]) -> T:
        if not isinstance(value, kind):
            self.fail(f"{name} is {_short(value)}, and should be of the type {kind.__name__}")
        return value


def _read_text(path: Path) -> str:
    """Read a text file.

    Raises:
      ValueError: it is missing, too large or no text; it names the file.
    """
    try:
        if (size := path.stat().st_size) > _MAX_FILE_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than the limit of {_MAX_FILE_BYTES:,}")
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def _shard_lengths(info: _Json) -> dict[str, tuple[int, ...]]:
    lengths = {}
    for split in info.get(info.content, "splits", list, default=[]):
        name = info.get(split if isinstance(split, dict) else {}, "name", str)
        lengths[name] = tuple(
            info.whole_number(length, "shardLengths", _MAX_EXAMPLES)
            for length in info.get(split, "shardLengths", list, default=[])
        )
    return lengths


def _class_names(folder: Path, label_key: str, num_classes: int) -> tuple[str, ...]:
    file = folder / f"{label_key}.labels.txt"
    if file.is_file():
        # As TFDS reads it: other characters than line feeds end no line.
        lines = (line.strip() for line in _read_text(file).split("\n"))
        names = tuple(line for line in lines if line)
        if num_classes not in (0, len(names)):
            raise ValueError(
                f"{file} names {len(names):,} classes, and features.json has {num_classes:,}. Copy "
                "the set again, or prepare it anew."
            )
    else:
        names = tuple(str(number) for number in range(num_classes))
    if not names:
        raise ValueError(f"{folder}: the label {label_key!r} does not say how many classes it has.")
    return names


def _find_keys(info: _Json, kinds: Mapping[str, str], name: str) -> tuple[str, str]:
    """Find image and label: the supervised pair, else the only Image and the only ClassLabel."""
    images = [key for key, kind in kinds.items() if kind.endswith(".Image")]
    labels = [key for key, kind in kinds.items() if kind.endswith(".ClassLabel")]
    keys = info.get(info.content, "supervisedKeys", dict, default={})
    pair = info.get(info.get(keys, "tuple", dict, default={}), "items", list, default=[])
    pair = [item.get("featureKey") for item in pair if isinstance(item, dict)]
    if len(pair) == 2 and pair[0] in images and pair[1] in labels:
        return pair[0], pair[1]
    if len(images) == 1 and len(labels) == 1:
        return images[0], labels[0]
    raise ValueError(
        f"{name} is no image classification set: it needs one image and one class label, "
        f"and has the images {images or 'none'} and the labels {labels or 'none'}. "
        f"So say the files in {info.folder}."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
