"""Model folders of other libraries, read as our own: timm's and transformers'.

Their weights are PyTorch's, with names and layouts that the tables of ``names`` know; nothing in
such a folder records a hash, so that only ``safetensors``' own structure is verified.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.models.table import Preprocessing, model_entry
from lska_jax.models.weight_tags import IMAGENET_CLASSES, WeightTag
from lska_jax.weights.checkpoint_file import open_checkpoint
from lska_jax.weights.class_names import imagenet_names
from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.fitting import Fitted, fit, recognise_network
from lska_jax.weights.folder_files import inside, read_object
from lska_jax.weights.model_facts import CONFIG_NAME, ModelFacts, check_facts
from lska_jax.weights.names.naming import is_unclear
from lska_jax.weights.stated import Stated
from lska_jax.weights.timm_layout import is_timm, read_timm
from lska_jax.weights.transformers_layout import (
    PREPROCESSOR_NAME,
    is_transformers,
    read_transformers,
)

# In the order in which they are looked for.
WEIGHTS_NAMES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.pth", "model.pth"),
)
# Of a thousand names, how many have to be ImageNet's for the others to be spelt otherwise only.
_MOSTLY = 900
_UNVERIFIED = "none recorded in this layout; not verified"


class ForeignModel:
    """A model in a folder of another library, or in one published file; arrays are read late.

    Attributes:
      facts: what this package would say of it.
    """

    def __init__(self, facts: ModelFacts, fitted: Fitted):
        self.facts = facts
        self._fitted = fitted

    def arrays(self) -> dict[str, np.ndarray]:
        """Return {path: array} float32; errors are those of ``conversion.convert``."""
        return self._fitted.arrays()


def is_foreign(record: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is another library's."""
    return is_timm(record) or is_transformers(record)


def open_foreign_folder(
    folder: Path, record: Mapping[str, Any], *, root: Path | None, tag: WeightTag | None = None
) -> ForeignModel:
    """Open a folder that timm or transformers wrote.

    Args:
      folder: the folder.
      record: its config.json.
      root: see ``folder_files.inside``.
      tag: the published weights that it is known to be, whose preprocessing and licence are taken.

    Raises:
      FileNotFoundError: it holds no weights.
      ImportError: it holds a PyTorch file alone, and PyTorch is not installed.
      ValueError: it states what this package does not have, or its weights do not fit.
    """
    path = folder / CONFIG_NAME
    try:
        stated = _stated(folder, record, root)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a model: {error}") from error
    weights = _find_weights(folder, root)
    opened = open_checkpoint(weights, root=root)
    fitted = _fit_stated(stated, opened.arrays, weights)
    _check_stated(stated, fitted, path)
    fitted.check()
    prepared = _preprocessing(stated, fitted, tag, path)
    config = fitted.config
    facts = ModelFacts(
        config=config,
        preprocessing=prepared.for_channels(config.in_channels),
        class_names=_class_names(stated.class_names, config.num_classes),
        license=tag.license if tag else stated.license,
        source={
            "layout": stated.layout,
            **stated.source,
            **({"tag": tag.name, "hub": tag.hub} if tag else {}),
            "file": weights.name,
            "naming": fitted.naming,
            "sha256": _UNVERIFIED,
        },
    )
    return ForeignModel(_checked(facts, path), fitted)


def open_published_file(folder: Path, tag: WeightTag, *, root: Path | None) -> ForeignModel:
    """Open the one file that published weights are, in a folder of the Hub's cache.

    Raises:
      FileNotFoundError: it is not there.
      ImportError: it is PyTorch's, and PyTorch is not installed.
      ValueError: it does not fit its model.
    """
    path = inside(folder, tag.file, root=root)
    opened = open_checkpoint(path)
    fitted = fit(opened.arrays, path, entry=model_entry(tag.model))
    fitted.check()
    config = fitted.config
    facts = ModelFacts(
        config=config,
        preprocessing=tag.preprocessing.for_channels(config.in_channels),
        class_names=_class_names(None, config.num_classes),
        license=tag.license,
        source={
            "tag": tag.name,
            "hub": tag.hub,
            "file": tag.file,
            "naming": fitted.naming,
            "sha256": _UNVERIFIED,
        },
    )
    return ForeignModel(_checked(facts, path), fitted)


def _stated(folder: Path, record: Mapping[str, Any], root: Path | None) -> Stated:
    if is_timm(record):
        return read_timm(record)
    processor = inside(folder, PREPROCESSOR_NAME, root=root)
    return read_transformers(record, read_object(processor) if processor.is_file() else None)


def _find_weights(folder: Path, root: Path | None) -> Path:
    for name in WEIGHTS_NAMES:
        path = inside(folder, name, root=root)
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder} has a {CONFIG_NAME} and no weights; looked for: {', '.join(WEIGHTS_NAMES)}."
    )


def _fit_stated(stated: Stated, stored: Mapping[str, StoredArray], path: Path) -> Fitted:
    """Return the network in a folder's weights: as it is stated, completed by names and shapes."""
    names, inferred = recognised = recognise_network(stored, path)
    shown = {
        field: value
        for field, value in inferred.fields.items()
        if field in names.family.architecture_fields and not is_unclear(value)
    }
    sizes = {field: value for field, value in shown.items() if not isinstance(value, str)}
    words = {field: value for field, value in stated.words.items() if field not in shown}
    given = {**words, **stated.fields}
    if stated.model is not None:
        if stated.is_resized:
            given = {**sizes, **given}
        entry = model_entry(stated.model)
        return fit(stored, path, recognised=recognised, entry=entry, given=given)
    try:
        return fit(stored, path, recognised=recognised, given=given)
    except ValueError:
        # Sizes of nobody's: a model with the same words, and what shows and is stated.
        found = {**shown, **given}
        for name, fields in names.family.models.items():
            said = {field: value for field, value in fields.items() if isinstance(value, str)}
            if stated.family == names.family.name and said.items() <= found.items():
                entry = model_entry(name)
                wanted = {**sizes, **stated.fields}
                return fit(stored, path, recognised=recognised, entry=entry, given=wanted)
        raise


def _check_stated(stated: Stated, fitted: Fitted, path: Path) -> None:
    family, config = fitted.names.family.name, fitted.config
    if stated.family != family:
        raise ValueError(
            f"{path} states a model of {stated.family}, and {fitted.path.name} holds arrays of "
            f"{family}."
        )
    if stated.num_classes not in (None, config.num_classes):
        raise ValueError(
            f"{path} states {stated.num_classes} classes, and {fitted.path.name} has a classifier "
            f"of {config.num_classes}."
        )


def _preprocessing(
    stated: Stated, fitted: Fitted, tag: WeightTag | None, path: Path
) -> Preprocessing:
    if tag is not None:
        return tag.preprocessing
    names, config = fitted.names, fitted.config
    prepared = stated.preprocessing
    if prepared is None:
        raise ValueError(
            f"{path.parent} has no {PREPROCESSOR_NAME}, which would say how its images are "
            f"prepared. Add it, or import the weights: lska-jax import {fitted.path} --weights TAG "
            "--out DIR."
        )
    # VAN's copies of the thousand classes state another preprocessing than they were trained with.
    misstated = names.preprocessings.get("imagenet")
    if config.num_classes == IMAGENET_CLASSES and prepared == misstated:
        choice, _ = names.usual_preprocessing(fitted.naming, config)
        return names.preprocessings[choice]
    return prepared


def _class_names(stated: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...] | None:
    if not num_classes:
        return None
    if num_classes != IMAGENET_CLASSES:
        return stated
    if stated is None:
        return imagenet_names()
    # transformers' list gives all words of a synset, "tench, Tinca tinca".
    pairs = zip(stated, imagenet_names(), strict=False)
    same = sum(_word(one) == _word(other) for one, other in pairs)
    return imagenet_names() if same > _MOSTLY else stated


def _word(name: str) -> str:
    return name.split(",")[0].replace("_", " ").strip().lower()


def _checked(facts: ModelFacts, path: Path) -> ModelFacts:
    try:
        check_facts(facts)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a model: {error}") from error
    return facts
