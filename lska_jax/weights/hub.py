"""Find a model folder: on the disk, or on the Hugging Face Hub."""

import re
from pathlib import Path
from typing import NamedTuple

from lska_jax.weights.model_facts import CONFIG_NAME, WEIGHTS_NAME

HUB_PREFIX = "hf-hub:"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


class Located(NamedTuple):
    """A model folder on the disk.

    Attributes:
      folder: where it is.
      root: the folder that links in it may point into; the Hub's cache links to its own store.
    """

    folder: Path
    root: Path


def find_model_folder(pretrained: str | Path) -> Located:
    """Return the model folder that a path or Hub id stands for, downloaded if need be.

    Args:
      pretrained: a model folder; or "org/name", "org/name@revision", where no such folder is, or
        the same with "hf-hub:" in front.

    Raises:
      FileNotFoundError: neither a folder nor a Hub id.
      ImportError: a Hub id, and huggingface_hub is not installed.
      ConnectionError: the Hub does not answer, or not with these files; says what to download.
    """
    text = str(pretrained)
    path = Path(text).expanduser()
    if not text.startswith(HUB_PREFIX) and path.is_dir():
        return Located(path, path)
    match = _HUB_ID.fullmatch(text.removeprefix(HUB_PREFIX))
    if not match or ".." in text:
        raise FileNotFoundError(
            f"There is no model folder {text!r}, and it is no Hub id such as 'org/name' or "
            "'hf-hub:org/name@revision'."
        )
    return _download(match["repo"], match["revision"])


def _download(repo: str, revision: str | None) -> Located:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"Downloading {repo} needs huggingface_hub: pip install 'lska-jax[hub]', or pip "
            f"install huggingface_hub. {_by_hand(repo, revision)}"
        ) from error
    try:
        folder = Path(
            snapshot_download(repo, revision=revision, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME])
        )
    # The library raises errors of several packages: its own, of HTTP, of the file system.
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ConnectionError(
            f"{repo} could not be downloaded ({reason[0] if reason else type(error).__name__}). "
            f"{_by_hand(repo, revision)}"
        ) from error
    # CACHE/models--org--name/snapshots/REVISION/file links to CACHE/models--org--name/blobs.
    return Located(folder, folder.parent.parent)


def _by_hand(repo: str, revision: str | None) -> str:
    place = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}"
    return (
        f"Without it, download {place}/{CONFIG_NAME} and {place}/{WEIGHTS_NAME} by hand into one "
        "folder and pass that folder."
    )
