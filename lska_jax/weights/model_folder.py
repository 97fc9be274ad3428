"""A model as a folder that can be published: weights, config, model card.

    model.safetensors   our arrays by path, float32 or float16, in our layout
    config.json         architecture, preprocessing, class names, licence, source; SHA-256 of the
                        weights, and of its own content
    README.md           the model card

Reading it executes nothing, verifies the hashes, and follows no path out of the folder.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.models.build import array_shapes
from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.folder_files import inside, object_of, sha256_of
from lska_jax.weights.foreign_folder import (
    WEIGHTS_NAMES,
    ForeignModel,
    is_foreign,
    open_foreign_folder,
    open_published_file,
)
from lska_jax.weights.half_precision import STORED_DTYPES, in_stored_dtype
from lska_jax.weights.hub import Located, find_model_folder
from lska_jax.weights.in_the_box import explain_hidden
from lska_jax.weights.model_card import write_card
from lska_jax.weights.model_facts import (
    CONFIG_NAME,
    FORMAT,
    WEIGHTS_NAME,
    ModelFacts,
    check_facts,
    check_record,
    facts_from_json,
    facts_to_json,
)
from lska_jax.weights.safetensors_file import open_safetensors, save_safetensors

CARD_NAME = "README.md"


def write_model_folder(
    folder: str | Path,
    facts: ModelFacts,
    arrays: Mapping[str, np.ndarray],
    *,
    dtype: str = "float32",
    about: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a model folder: complete, or not at all.

    Args:
      folder: where; made with its parents if missing.
      facts: about the model.
      arrays: parameters and statistics by path, float32, in our layout.
      dtype: in which the weights are stored, see ``half_precision``; they are read as float32.
      about: Markdown that the card says besides.
      overwrite: replace a model folder that is there.

    Returns:
      The folder.

    Raises:
      FileExistsError: the folder is there and not empty, and ``overwrite`` is off or it is no
        model folder.
      ValueError: arrays that are not the model's, facts that do not fit it, or another dtype.
    """
    folder = Path(folder)
    check_can_write(folder, overwrite=overwrite)
    check_facts(facts)
    _check_shapes({p: a.shape for p, a in arrays.items()}, facts.config, "The arrays")
    stored = in_stored_dtype(arrays, dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        # Nobody knows the other name.
        raise OSError(error.errno, error.strerror, str(folder)) from None
    try:
        weights = temporary / WEIGHTS_NAME
        save_safetensors(weights, stored, metadata={"format": FORMAT})
        found = sha256_of(weights)
        config = facts_to_json(facts, sha256=found, size=weights.stat().st_size, dtype=dtype)
        (temporary / CONFIG_NAME).write_bytes(config)
        card = write_card(
            facts, weights_sha256=found, folder_name=folder.name, dtype=dtype, about=about
        )
        (temporary / CARD_NAME).write_bytes(card.encode("utf-8", "backslashreplace"))
        _give_usual_permissions(temporary)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_can_write(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else, before any work is done.

    Raises:
      FileExistsError: see ``write_model_folder``.
    """
    folder = Path(folder)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise FileExistsError(f"{folder} is there and no folder; choose another --out.")
    there = {path.name for path in folder.iterdir()}
    if not there:
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} is not empty; choose another folder, or replace a model folder with "
            "--overwrite."
        )
    foreign = sorted(there - {WEIGHTS_NAME, CONFIG_NAME, CARD_NAME})
    if foreign or CONFIG_NAME not in there:
        shown = ", ".join(foreign[:5]) or f"no {CONFIG_NAME}"
        raise FileExistsError(
            f"{folder} is no model folder ({shown}) and is not overwritten; choose another."
        )


def read_facts(place: str | Path | Located) -> ModelFacts:
    """Read what a model folder says about its model, without its weights.

    Args:
      place: see ``read_model_folder``.

    Raises:
      FileNotFoundError: there is no model folder.
      ValueError: config.json is damaged, or of another format.
    """
    return _open(place).facts


def read_model_folder(place: str | Path | Located) -> tuple[ModelFacts, dict[str, np.ndarray]]:
    """Read a model folder, of this package, of timm or of transformers.

    The hashes of our own are verified; the others have none.

    Args:
      place: what ``hub.find_model_folder`` takes, or what it returned.

    Returns:
      The facts, and {path: array} float32 of the parameters and statistics.

    Raises:
      FileNotFoundError: there is no model folder.
      ImportError: it is on the Hub or holds a PyTorch file, and a package is not installed.
      ConnectionError: the Hub cannot be reached.
      ValueError: a SHA-256 is not the recorded one, a file lies outside, or config and weights are
        damaged or do not fit each other.
    """
    opened = _open(place)
    return opened.facts, opened.arrays()


def read_own_arrays(place: str | Path | Located) -> dict[str, np.ndarray] | None:
    """Return the arrays of a model folder of this package as they are stored; None of another's.

    Their hash is verified, and not whether they fit the config: for who has seen that they do.

    Args:
      place: see ``read_model_folder``, also for what is raised.
    """
    opened = _open(place)
    return opened.arrays(is_checked=False) if isinstance(opened, _OwnModel) else None


def is_model_folder(folder: Path) -> bool:
    """Tell whether a folder is a model folder of this package or another, damaged or not."""
    return (folder / CONFIG_NAME).is_file() and any(
        (folder / name).is_file() for name in (WEIGHTS_NAME, *WEIGHTS_NAMES)
    )


class _OwnModel:
    """A model in a folder of this package; arrays are read late."""

    def __init__(self, folder: Path, record: Mapping[str, Any], root: Path):
        self.facts = facts_from_json(record, folder)
        self._folder, self._root = folder, root
        self._weights = record.get("weights")

    def arrays(self, *, is_checked: bool = True) -> dict[str, np.ndarray]:
        """Return {path: array} float32, having verified their hash, and the shapes as well."""
        folder, weights = self._folder, self._weights
        if not isinstance(weights, dict) or not isinstance(weights.get("sha256"), str):
            raise ValueError(f"{folder / CONFIG_NAME} records no SHA-256 of the weights.")
        name = weights.get("file", WEIGHTS_NAME)
        if not isinstance(name, str):
            raise ValueError(f"{folder / CONFIG_NAME} names no file of weights: {name!r}.")
        path = inside(folder, name, root=self._root)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; copy the whole model folder.")
        found = sha256_of(path)
        if found != weights["sha256"].lower():
            raise ValueError(
                f"{path} is not the file that was published: its SHA-256 is {found}, "
                f"{CONFIG_NAME} records {weights['sha256']}. Fetch the folder again."
            )
        dtype = weights.get("dtype", "float32")
        if dtype not in STORED_DTYPES:
            raise ValueError(
                f"{folder / CONFIG_NAME} says that its weights are {dtype!r}; allowed: "
                f"{', '.join(STORED_DTYPES)}."
            )
        stored = open_safetensors(path)
        if is_checked:
            _check_shapes({n: a.shape for n, a in stored.items()}, self.facts.config, str(path))
        return {name: _float32(name, array, path, dtype) for name, array in stored.items()}


def _open(place: str | Path | Located) -> _OwnModel | ForeignModel:
    located = place if isinstance(place, Located) else find_model_folder(place)
    folder, root, tag = located
    if tag and tag.file:
        return open_published_file(folder, tag, root=root)
    path = inside(folder, CONFIG_NAME, root=root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {CONFIG_NAME}. Make one from a PyTorch "
            f"checkpoint with lska-jax import.{explain_hidden(folder)}"
        )
    data = path.read_bytes()
    record = object_of(data, path)
    if is_foreign(record):
        return open_foreign_folder(folder, record, root=root, tag=tag)
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a model folder's config, nor timm's or transformers'. If the weights "
            "beside it are PyTorch's, import them: lska-jax import FILE. If it is a training "
            "run's, publish the run: lska-jax publish."
        )
    check_record(record, data, path)
    return _OwnModel(folder, record, root)


def _give_usual_permissions(folder: Path) -> None:
    """Give a private folder and its files the permissions of all that the user writes."""
    mask = _umask()
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)
    folder.chmod(0o777 & ~mask)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_in_place(temporary: Path, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside)
    else:
        temporary.rename(folder)


def _float32(name: str, array: StoredArray, path: Path, dtype: str) -> np.ndarray:
    # What float16 does not hold is float32 there too.
    if array.dtype not in ("float32", dtype):
        raise ValueError(
            f"{path}: {name} is {array.dtype}; a model folder holds float32, or float16 where its "
            f"{CONFIG_NAME} says so."
        )
    return np.asarray(array.read(), np.float32)


def _check_shapes(given: Mapping[str, tuple[int, ...]], config: Any, what: str) -> None:
    wanted = array_shapes(config)
    lines = [f"{path}: missing" for path in wanted if path not in given]
    lines += [f"{path}: not in the model" for path in given if path not in wanted]
    lines += [
        f"{path}: {tuple(given[path])}, expected {shape}"
        for path, shape in wanted.items()
        if path in given and tuple(given[path]) != shape
    ]
    if lines:
        raise ValueError(f"{what} do not fit the config's architecture:\n  " + "\n  ".join(lines))
