"""``lska-jax prepare``: prepare TFDS sets as ArrayRecord, without TensorFlow.

TFDS's builders call TensorFlow for little more than opening files. Where it is not installed, they
get a stand-in for that (see ``_without_tensorflow``). TFDS's own converter needs both TensorFlow
and Beam, so ``data.tfrecord`` reads the format itself.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import importlib.util
import io
import json
import os
import resource
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lska_jax.commands import frame

if TYPE_CHECKING:
    import numpy as np

    from lska_jax.data.tfds_description import PreparedSet

_DESCRIPTION = """\
Prepare data sets of TensorFlow Datasets (TFDS) as ArrayRecord, which training reads without
TensorFlow."""

_EXAMPLES = (
    "lska-jax prepare imagenet2012 --manual_dir DOWNLOADS    # its two tars, from image-net.org",
    "lska-jax prepare tfds cifar10",
    "lska-jax prepare convert imagenet2012:5.1.0 --data_dir DATA",
)
_GIB = 1 << 30
# Size of the complete archives, from the download page.
_IMAGENET_TARS = {"ILSVRC2012_img_train.tar": 138.0, "ILSVRC2012_img_val.tar": 6.3}
# The examples lie on disk twice while TFDS shuffles them.
_SHUFFLE_FACTOR = 2.0
# TFDS shuffles large sets through a thousand open files; the usual soft limit is 1,024.
_OPEN_FILES = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _prepare, argv)


def _prepare(arguments: argparse.Namespace) -> None:
    print(f"Ready: {arguments.run(arguments)}")


def prepare_imagenet2012(manual_dir: str, *, data_dir: str | None = None) -> Path:
    """Prepare imagenet2012 from its train and validation tars.

    Args:
      manual_dir: the folder with the two tars.
      data_dir: where sets are prepared; ``None`` is TFDS's default.

    Returns:
      The prepared folder; at once when it is there already.

    Raises:
      ValueError: if a tar is missing or unreadable, the disk is too small, or the set is there
        as TFRecord.
    """
    folder = Path(manual_dir).expanduser()
    tars = [folder / name for name in _IMAGENET_TARS]
    if missing := [tar.name for tar in tars if not tar.is_file()]:
        sizes = ", ".join(f"{name} ({gib:g} GiB)" for name, gib in _IMAGENET_TARS.items())
        raise ValueError(
            f"{folder} lacks {' and '.join(missing)}. imagenet2012 needs {sizes}: register at "
            "https://image-net.org/download-images, download both and pass their folder as "
            "--manual_dir."
        )
    for tar in tars:
        if not tarfile.is_tarfile(tar):
            raise ValueError(f"{tar} is not a readable tar; download it again.")
        size, complete = tar.stat().st_size / _GIB, _IMAGENET_TARS[tar.name]
        if abs(size - complete) > 0.01 * complete:
            note = f"Note: {tar.name} has {size:.1f} GiB, the complete one {complete:g} GiB."
            print(note, file=sys.stderr)
    needed = _SHUFFLE_FACTOR * sum(tar.stat().st_size for tar in tars)
    return prepare_tfds("imagenet2012", data_dir=data_dir, manual_dir=manual_dir, needed=needed)


def prepare_tfds(
    location: str,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    needed: float = 0.0,
) -> Path:
    """Download and prepare any TFDS set as ArrayRecord.

    An interrupted run starts over: TFDS shuffles all examples before it writes the first shard.

    Args:
      location: ``NAME[/CONFIG][:VERSION]``.
      data_dir: where sets are prepared; ``None`` is TFDS's default.
      manual_dir: folder of files that have to be downloaded by hand.
      needed: free bytes needed; 0 leaves the check to TFDS.

    Returns:
      The prepared folder; at once when it is there already.

    Raises:
      ValueError: if TFDS knows no such set, the disk is too small, or the set is there as
        TFRecord.
    """
    import tensorflow_datasets as tfds

    from lska_jax.data.tfds_source import find_prepared, refuse_unreadable_format

    try:
        builder = tfds.builder(location, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = sorted(set(tfds.list_builders(with_community_datasets=False)))
        close = difflib.get_close_matches(location, known, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"TFDS knows no set {location!r}.{hint}") from error
    folder = Path(builder.data_dir)
    if (folder / "dataset_info.json").is_file():
        name, _, version = builder.info.full_name.rpartition("/")
        prepared = find_prepared(f"{name}:{version}", data_dir=data_dir)
        refuse_unreadable_format(prepared, data_dir=data_dir)
        return folder
    if leftovers := sorted(folder.parent.glob(f"incomplete.*_{folder.name}")):
        shown = " ".join(str(leftover) for leftover in leftovers)
        print(f"Note: an earlier run left {shown}; remove it if none is running.", file=sys.stderr)
    _check_disk_space(folder, needed)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    with _without_tensorflow():
        builder.download_and_prepare(download_config=config, file_format="array_record")
    return folder


def convert(location: str, *, data_dir: str | None = None) -> Path:
    """Add ArrayRecord shards to a set that was prepared as TFRecord.

    Each record's checksums are verified. Shards are written to a folder ``incomplete.*`` beside
    the set, where an interrupted run goes on; the set itself changes only when all are complete.
    TFDS then lists ArrayRecord as an *alternative* format: TFRecord stays the main one, since
    ``as_dataset`` reads nothing else and TensorFlow programs may share the folder.

    Args:
      location: ``NAME[/CONFIG][:VERSION]``.
      data_dir: where the set is; ``None`` is TFDS's default.

    Returns:
      The prepared folder; at once when it has ArrayRecord shards already.

    Raises:
      ValueError: if the set is missing, broken or in neither format, or the disk is too small.
    """
    from lska_jax.data.tfds_source import find_prepared

    prepared = find_prepared(location, data_dir=data_dir)
    folder = prepared.folder
    if "array_record" in prepared.formats:
        return folder
    if "tfrecord" not in prepared.formats:
        raise ValueError(f"{folder} is prepared as {set(prepared.formats)}, not as TFRecord.")
    unfinished = folder.with_name(f"incomplete.array_record_{folder.name}")
    unfinished.mkdir(exist_ok=True)
    for shard in _convert_shards(prepared, unfinished):
        os.replace(shard, folder / shard.name)
    info = json.loads((folder / "dataset_info.json").read_text())
    info.setdefault("alternativeFileFormats", []).append("array_record")
    # Written last and in one step: until then readers see the set as it was.
    (unfinished / "dataset_info.json").write_text(json.dumps(info, indent=2))
    os.replace(unfinished / "dataset_info.json", folder / "dataset_info.json")
    shutil.rmtree(unfinished)
    return folder


def _convert_shards(prepared: PreparedSet, folder: Path) -> list[Path]:
    """Write every shard into the folder, except those that are complete already."""
    from tensorflow_datasets.core import dataset_info, file_adapters
    from tqdm import tqdm

    from lska_jax.data.tfrecord import read_tfrecords

    try:
        info = dataset_info.read_proto_from_builder_dir(prepared.folder)
        read_from = dataset_info.get_split_dict_from_proto(info, prepared.folder, "tfrecord")
        write_to = dataset_info.get_split_dict_from_proto(info, folder, "array_record")
    # TFDS meets what is damaged with any error.
    except Exception as error:
        raise ValueError(
            f"{prepared.folder / 'dataset_info.json'} is damaged: {error}. Copy the set again."
        ) from error
    done = sum(file.stat().st_size for file in folder.iterdir())
    needed = float(max(0, sum(split.num_bytes for split in read_from.values()) - done))
    _check_disk_space(folder, needed)
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    shards = []
    total = sum(split.num_examples for split in read_from.values())
    with tqdm(total=total, desc=prepared.full_name, unit=" examples", mininterval=1.0) as progress:
        for name, split in read_from.items():
            lengths = split.shard_lengths
            for index, length in enumerate(lengths):
                place = {"shard_index": index, "num_shards": len(lengths)}
                source = Path(split.filename_template.sharded_filepath(**place))
                shard = Path(write_to[name].filename_template.sharded_filepath(**place))
                shards.append(shard)
                if shard.is_file():
                    progress.update(length)
                    continue
                if not source.is_file():
                    raise ValueError(f"{source} is missing: prepare or copy the set again.")
                part = shard.with_name(f"part.{shard.name}")
                adapter.write_examples(part, _count_into(progress, read_tfrecords(source)))
                if (written := adapter.num_examples(part)) != length:
                    raise ValueError(
                        f"{source} gave {written} examples, its set lists {length}: "
                        "prepare or copy it again."
                    )
                os.replace(part, shard)
    return shards


def _count_into(progress: Any, records: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    for index, record in enumerate(records):
        yield index, record
        progress.update()


def _check_disk_space(folder: Path, needed: float) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ValueError(
            f"{existing} has {free / _GIB:.1f} GiB free and {needed / _GIB:.1f} GiB are needed; "
            "free some, or choose another folder with --data_dir."
        )


class _StandIn(SimpleNamespace):
    """The part of TensorFlow that builders use to open files."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(
            f"This TFDS builder needs TensorFlow (its {name!r}); install it in an environment for "
            "preparing, where this command then uses it. Training and reading do without."
        )


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Let TFDS's builders run where TensorFlow is not installed.

    Files are opened by Python. Images that builders re-encode, imagenet2012's 22 CMYK files and
    its one PNG among them, go through Pillow: the same libjpeg settings (quality 100), but pixels
    may differ from TensorFlow's by rounding.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.features import image_feature
    from tensorflow_datasets.core.utils import lazy_imports_utils

    gfile = _StandIn(
        GFile=open,
        exists=os.path.exists,
        isdir=os.path.isdir,
        listdir=os.listdir,
        makedirs=functools.partial(os.makedirs, exist_ok=True),
        remove=os.remove,
        walk=os.walk,
    )
    # Archives are unpacked under names that pass through as_text.
    stand_in = _StandIn(io=_StandIn(gfile=gfile), compat=_StandIn(as_text=os.fspath))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < _OPEN_FILES:
        enough = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    replacements = (
        (utils, "jpeg_cmyk_to_rgb", _to_rgb_jpeg),
        (utils, "png_to_jpeg", _to_rgb_jpeg),
        (image_feature._ImageEncoder, "_encode_image", _encode_array),
    )
    with contextlib.ExitStack() as undo:
        for owner, name, replacement in replacements:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        # Every module of TFDS shares this lazy module, which looks here for what it imported.
        resolved = vars(lazy_imports_utils.tensorflow)
        resolved["_module"] = stand_in
        undo.callback(resolved.pop, "_module")
        yield


def _to_rgb_jpeg(image: bytes, quality: int = 100) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def _encode_array(encoder: Any, image: np.ndarray) -> bytes:
    from PIL import Image

    if image.dtype != "uint8":
        raise ValueError(f"Encoding {image.dtype} images needs TensorFlow; install it to prepare.")
    encoded = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    # Lossless as PNG; 95 is TensorFlow's default for JPEG.
    Image.fromarray(pixels).save(encoded, encoder.encoding_format, quality=95)
    return encoded.getvalue()


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax prepare", _DESCRIPTION, examples=_EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: str, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            command,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=parser.epilog,
            formatter_class=parser.formatter_class,
        )
        added.add_argument("--data_dir", metavar="DIR", help="of TFDS's sets (default: TFDS's own)")
        return added

    imagenet = add("imagenet2012", "prepare ImageNet from its two tars")
    imagenet.add_argument("--manual_dir", required=True, metavar="DIR", help="with the two tars")
    imagenet.set_defaults(run=lambda a: prepare_imagenet2012(a.manual_dir, data_dir=a.data_dir))

    other = add("tfds", "download and prepare any TFDS set")
    other.add_argument("name", metavar="NAME", help="NAME[/CONFIG][:VERSION]")
    other.add_argument("--manual_dir", metavar="DIR", help="with files downloaded by hand")
    other.set_defaults(
        run=lambda a: prepare_tfds(a.name, data_dir=a.data_dir, manual_dir=a.manual_dir)
    )

    conversion = add("convert", "convert a TFRecord set to ArrayRecord")
    conversion.add_argument("name", metavar="NAME", help="NAME[/CONFIG][:VERSION]")
    conversion.set_defaults(run=lambda a: convert(a.name, data_dir=a.data_dir))
    return parser
