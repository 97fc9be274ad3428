"""A model as a folder that can be published: weights, config, model card.

    model.safetensors   our arrays by path, float32, in our layout
    config.json         architecture, preprocessing, class names, licence, source, SHA-256
    README.md           the model card

Reading it executes nothing, verifies the hash, and follows no path out of the folder.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.models.build import array_shapes
from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.folder_files import inside, sha256_of
from lska_jax.weights.model_card import write_card
from lska_jax.weights.model_facts import (
    CONFIG_NAME,
    FORMAT,
    FORMAT_VERSION,
    WEIGHTS_NAME,
    ModelFacts,
    check_facts,
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
    overwrite: bool = False,
) -> Path:
    """Write a model folder: complete, or not at all.

    Args:
      folder: where; made with its parents if missing.
      facts: about the model.
      arrays: parameters and statistics by path, float32, in our layout.
      overwrite: replace a model folder that is there.

    Returns:
      The folder.

    Raises:
      FileExistsError: the folder is there and not empty, and ``overwrite`` is off or it is no
        model folder.
      ValueError: arrays that are not the model's, or facts that do not fit it.
    """
    folder = Path(folder)
    check_can_write(folder, overwrite=overwrite)
    check_facts(facts)
    _check_shapes({p: a.shape for p, a in arrays.items()}, facts.config, "The arrays")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = temporary / WEIGHTS_NAME
        save_safetensors(weights, arrays, metadata={"format": FORMAT})
        record = facts_to_json(facts, sha256=sha256_of(weights), size=weights.stat().st_size)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (temporary / CONFIG_NAME).write_text(text, encoding="utf-8")
        card = write_card(facts, record, folder_name=folder.name)
        (temporary / CARD_NAME).write_text(card, encoding="utf-8")
        # mkdtemp makes a private folder; a published one has the user's usual permissions.
        temporary.chmod(0o777 & ~_umask())
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


def read_facts(folder: str | Path, *, root: Path | None = None) -> ModelFacts:
    """Read a model folder's config.json without its weights.

    Args:
      folder: the model folder.
      root: the folder that links in it may point into; None is the folder itself.

    Raises:
      FileNotFoundError: it is no model folder.
      ValueError: config.json is damaged, or of another format.
    """
    return facts_from_json(_read_config(Path(folder), root), Path(folder))


def read_model_folder(
    folder: str | Path, *, root: Path | None = None
) -> tuple[ModelFacts, dict[str, np.ndarray]]:
    """Read a model folder and verify its weights.

    Args:
      folder: the model folder.
      root: see ``read_facts``.

    Returns:
      The facts, and {path: array} float32 of the parameters and statistics.

    Raises:
      FileNotFoundError: it is no model folder.
      ValueError: the weights' SHA-256 is not the recorded one, a file lies outside, or config and
        weights are damaged or do not fit each other.
    """
    folder = Path(folder)
    record = _read_config(folder, root)
    facts = facts_from_json(record, folder)
    weights = record.get("weights")
    if not isinstance(weights, dict) or not isinstance(weights.get("sha256"), str):
        raise ValueError(f"{folder / CONFIG_NAME} records no SHA-256 of the weights.")
    path = inside(folder, str(weights.get("file", WEIGHTS_NAME)), root=root)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy the whole model folder.")
    found = sha256_of(path)
    if found != weights["sha256"].lower():
        raise ValueError(
            f"{path} is not the file that was published: its SHA-256 is {found}, "
            f"{CONFIG_NAME} records {weights['sha256']}. Fetch the folder again."
        )
    stored = open_safetensors(path)
    _check_shapes({name: a.shape for name, a in stored.items()}, facts.config, str(path))
    return facts, {name: _float32(name, array, path) for name, array in stored.items()}


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


def _float32(name: str, array: StoredArray, path: Path) -> np.ndarray:
    if array.dtype != "float32":
        raise ValueError(f"{path}: {name} is {array.dtype}; a model folder holds float32.")
    return array.read()


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


def _read_config(folder: Path, root: Path | None) -> dict[str, Any]:
    path = inside(folder, CONFIG_NAME, root=root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {CONFIG_NAME}. Make one from a PyTorch "
            "checkpoint with lska-jax import."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a model folder's config. If it is Hugging Face's VAN, import its "
            "weights first: lska-jax import FOLDER/model.safetensors. If "
            "it is a training run's, publish the run: lska-jax publish."
        )
    if record.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {record.get('format_version')!r}; this version of "
            f"lska_jax reads {FORMAT_VERSION}."
        )
    return record
