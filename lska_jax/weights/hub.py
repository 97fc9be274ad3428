"""Find a model: on the disk, on the Hugging Face Hub, or published weights by name."""

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lska_jax.models.table import list_models
from lska_jax.models.weight_tags import WeightTag, find_tag, list_tags, weights_of
from lska_jax.weights.folder_files import sha256_of
from lska_jax.weights.in_the_box import explain_hidden, find_on_disk, list_box
from lska_jax.weights.model_facts import CONFIG_NAME, WEIGHTS_NAME

HUB_PREFIX = "hf-hub:"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What is asked for first, and what is asked for where there is no safetensors file.
_FILES = (
    *(WEIGHTS_NAME, CONFIG_NAME, "preprocessor_config.json"),
    *("model.safetensors.index.json", "model-*-of-*.safetensors"),
)
_PICKLED_FILES = (
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)


class Located(NamedTuple):
    """A model folder on the disk.

    Attributes:
      folder: where it is.
      root: the folder that links in it may point into; the Hub's cache links to its own store.
      tag: the published weights that it is known to be.
    """

    folder: Path
    root: Path
    tag: WeightTag | None = None


def find_model_folder(pretrained: str | Path) -> Located:
    """Return the model folder that a path, Hub id or tag stands for, downloaded if need be.

    Args:
      pretrained: a model folder; a model that comes with the package, see ``in_the_box``;
        published weights by name, as in "convnext_tiny.fb_in1k"; or "org/name",
        "org/name@revision", where no such folder is, or the same with "hf-hub:" in front.

    Raises:
      FileNotFoundError: neither a folder nor a Hub id, or weights that nobody can download.
      ValueError: a file.
      ImportError: a Hub id, and huggingface_hub is not installed.
      ConnectionError: the Hub does not answer, or not with these files; says what to download.
      ValueError: a downloaded file has another hash than the Hub states.
    """
    text = str(pretrained)
    if not text.startswith(HUB_PREFIX):
        if path := find_on_disk(pretrained):
            if path.is_dir():
                return Located(path, _store_of(path) or path)
            raise ValueError(
                f"{path} is a file, no model folder. Make a folder of it: lska-jax import {path} "
                f"--out DIR.{explain_hidden(path)}"
            )
        if tag := find_tag(text):
            return find_weights_folder(tag)
    match = _HUB_ID.fullmatch(text.removeprefix(HUB_PREFIX))
    if not match or ".." in text:
        model = text.partition(".")[0]
        tags = f" {list_tags(model)}" if weights_of(model) else ""
        if models := [name for name in list_models() if text in weights_of(name)]:
            tags = f" As the tag of weights it needs a model's name too: {', '.join(models)}."
        raise FileNotFoundError(
            f"There is no model folder {text!r}, and it is no Hub id such as 'org/name' or "
            f"'hf-hub:org/name@revision'.{tags} {list_box()}"
        )
    lost = "" if text.startswith(HUB_PREFIX) else f"There is no folder {text} here, and the Hub's "
    if lost:
        # Without a network it may be minutes until an error says so.
        print(f"There is no folder {text} here; asking the Hub for it.", file=sys.stderr)
    return _download(match["repo"], match["revision"], lost=lost)


def find_weights_folder(tag: WeightTag) -> Located:
    """Return the folder of published weights, downloaded if need be.

    Raises:
      FileNotFoundError: they are not on the Hub; the message says where people get them.
      ImportError: huggingface_hub is not installed.
      ConnectionError: as ``find_model_folder``.
    """
    if not tag.hub:
        raise FileNotFoundError(
            f"The weights {tag.tag} of {tag.model} are in no place that programs can download from."
            f" They are in {tag.place}. Then: lska-jax import FILE --weights {tag.tag} --out DIR, "
            "and pass DIR."
        )
    files = (tag.file,) if tag.file else ()
    return _download(tag.hub, None, files=files, tag=tag)


def _download(
    repo: str,
    revision: str | None,
    *,
    files: Sequence[str] = (),
    lost: str = "",
    tag: WeightTag | None = None,
) -> Located:
    by_hand = _by_hand(repo, revision, files or (CONFIG_NAME, WEIGHTS_NAME), tag)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{lost}{repo} needs huggingface_hub to be downloaded: pip install 'lska-jax[hub]', or "
            f"pip install huggingface_hub. {by_hand}"
        ) from error

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))

    try:
        folder = fetch(files or _FILES)
        if not files and not any(folder.glob("model*.safetensors")):
            folder = fetch(_PICKLED_FILES)
    # The library raises errors of several packages: its own, of HTTP, of the file system.
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ConnectionError(
            f"{lost}{repo} could not be downloaded ({reason[0] if reason else type(error).__name__}"
            f"). {by_hand}"
        ) from error
    _check_hashes(folder)
    return Located(folder, _store_of(folder) or folder, tag)


def _check_hashes(folder: Path) -> None:
    """Compare files of the Hub's cache with the hashes that they are stored under.

    Large files are stored under their SHA-256, small ones under git's SHA-1 of a blob.

    Raises:
      ValueError: a file has another hash.
    """
    for file in sorted(folder.rglob("*")):
        stored = file.resolve()
        if not stored.is_file() or not _HASH.fullmatch(stored.name):
            continue
        if len(stored.name) == 64:
            found = sha256_of(stored)
        else:
            content = stored.read_bytes()
            # Not for safety: it is how git names what it stores.
            found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if found != stored.name:
            raise ValueError(
                f"{file} is not the file that the Hub has: its hash is {found}, the Hub states "
                f"{stored.name}. Remove {stored}, and the same command fetches it anew."
            )


def _store_of(folder: Path) -> Path | None:
    """Return the folder of the Hub's cache that the links in a folder of it point into, or None.

    CACHE/models--org--name/snapshots/REVISION/file links to CACHE/models--org--name/blobs.
    """
    snapshots = folder.absolute().parent
    is_cached = snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--")
    return snapshots.parent if is_cached else None


def _by_hand(repo: str, revision: str | None, files: Sequence[str], tag: WeightTag | None) -> str:
    place = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}"
    addresses = " and ".join(f"{place}/{file}" for file in files)
    if tag and tag.file:
        return (
            f"Without it, download {addresses} by hand, then: lska-jax import FILE --model "
            f"{tag.model} --weights {tag.tag} --out DIR, and pass DIR."
        )
    return f"Without it, download {addresses} by hand into one folder and pass that folder."
