"""A model as a folder that can be published: weights, config, model card.

    model.safetensors   our arrays by path, float32, in our layout
    config.json         architecture, preprocessing, class names, licence, source, SHA-256
    README.md           the model card

Reading it executes nothing, verifies the hash, and follows no path out of the folder.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lska_jax.nn.model_table import Preprocessing
from lska_jax.nn.van import VANConfig
from lska_jax.weights.architecture import ARCHITECTURE_FIELDS, array_shapes, size_name
from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.model_card import write_card
from lska_jax.weights.safetensors_file import open_safetensors, save_safetensors

FORMAT = "lska_jax model folder"
FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model folder says about its model.

    Attributes:
      config: the architecture; drop rates and compute choices are defaults.
      preprocessing: of the images.
      class_names: in label order, or None where they are not known.
      license: of the weights, an SPDX name or "unknown".
      source: where the weights come from, any JSON values.
    """

    config: VANConfig
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    license: str = "unknown"
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The named model that this is, or None."""
        size = size_name(self.config)
        return f"van_{self.config.attention}_{size}" if size else None


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
    _check_facts(facts)
    _check_shapes({p: a.shape for p, a in arrays.items()}, facts.config, "The arrays")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = temporary / WEIGHTS_NAME
        save_safetensors(weights, arrays, metadata={"format": FORMAT})
        record = _to_json(facts, sha256=sha256_of(weights), size=weights.stat().st_size)
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
    return _from_json(_read_config(Path(folder), root), Path(folder))


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
    facts = _from_json(record, folder)
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


def inside(folder: Path, name: str, *, root: Path | None = None) -> Path:
    """Return the path of a file in a folder.

    Raises:
      ValueError: the name, or a link that it is, leaves the folder (or ``root``).
    """
    place = PurePosixPath(name.replace("\\", "/"))
    path = folder / name
    allowed = (root or folder).resolve()
    if (
        place.is_absolute()
        or ".." in place.parts
        or not place.name
        or ":" in name
        or not path.resolve().is_relative_to(allowed)
    ):
        raise ValueError(f"{name!r} leaves the model folder {folder}; that is refused.")
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _check_shapes(given: Mapping[str, tuple[int, ...]], config: VANConfig, what: str) -> None:
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


def _to_json(facts: ModelFacts, *, sha256: str, size: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": facts.name,
        "architecture": {name: getattr(facts.config, name) for name in ARCHITECTURE_FIELDS},
        "preprocessing": facts.preprocessing._asdict(),
        "labels": facts.class_names,
        "license": facts.license,
        "source": dict(facts.source),
        "weights": {"file": WEIGHTS_NAME, "sha256": sha256, "bytes": size},
    }


def _read_config(folder: Path, root: Path | None) -> dict[str, Any]:
    path = inside(folder, CONFIG_NAME, root=root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {CONFIG_NAME}. Make one from a PyTorch "
            "checkpoint with python -m lska_jax.weights.import_torch."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a model folder's config. If it is Hugging Face's VAN, import its "
            "weights first: python -m lska_jax.weights.import_torch FOLDER/model.safetensors. If "
            "it is a training run's, publish the run: python -m lska_jax.training.publish."
        )
    if record.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {record.get('format_version')!r}; this version of "
            f"lska_jax reads {FORMAT_VERSION}."
        )
    return record


def _from_json(record: Mapping[str, Any], folder: Path) -> ModelFacts:
    path = folder / CONFIG_NAME
    try:
        fields = {name: _tuple(record["architecture"][name]) for name in ARCHITECTURE_FIELDS}
        _check_types(fields)
        prepared = {n: _tuple(record["preprocessing"][n]) for n in Preprocessing._fields}
        names = record.get("labels")
        if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
            raise ValueError("labels must be texts.")
        facts = ModelFacts(
            config=VANConfig(**fields),
            preprocessing=Preprocessing(**prepared),
            class_names=None if names is None else tuple(names),
            license=str(record.get("license", "unknown")),
            source=dict(record.get("source") or {}),
        )
        array_shapes(facts.config)
        _check_facts(facts)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]!r}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_types(fields: Mapping[str, Any]) -> None:
    for name in ("dims", "depths", "ffn_ratios"):
        value = fields[name]
        if not isinstance(value, tuple) or not all(_is_count(number, low=1) for number in value):
            raise ValueError(f"{name} must be a list of positive numbers, got {value!r}.")
    for name in ("k", "num_classes", "in_channels", "stem_stride"):
        if not _is_count(fields[name], low=0):
            raise ValueError(f"{name} must be a whole number, got {fields[name]!r}.")
    if fields["dilation"] is not None and not _is_count(fields["dilation"], low=1):
        raise ValueError(f"dilation must be a whole number or null, got {fields['dilation']!r}.")
    if not _is_number(fields["layer_norm_epsilon"]):
        raise ValueError(
            f"layer_norm_epsilon must be a number, got {fields['layer_norm_epsilon']!r}."
        )


def _check_facts(facts: ModelFacts) -> None:
    prepared, config = facts.preprocessing, facts.config
    for name in ("mean", "std"):
        values = getattr(prepared, name)
        if (
            not isinstance(values, tuple)
            or len(values) != config.in_channels
            or not all(_is_number(v) and (name == "mean" or v > 0) for v in values)
        ):
            raise ValueError(
                f"preprocessing {name} must be {config.in_channels} numbers"
                f"{'' if name == 'mean' else ' above 0'}, one a channel, got {values!r}."
            )
    if not _is_count(prepared.image_size, low=1):
        raise ValueError(f"image_size must be a positive number, got {prepared.image_size!r}.")
    if not _is_number(prepared.crop_pct) or not 0 < prepared.crop_pct <= prepared.image_size:
        raise ValueError(f"crop_pct must be a fraction such as 0.9, got {prepared.crop_pct!r}.")
    if prepared.interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}, got {prepared.interpolation!r}."
        )
    names = facts.class_names
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{len(names)} labels for {config.num_classes} classes.")


def _is_count(value: object, *, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
