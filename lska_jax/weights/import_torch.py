"""Import PyTorch weights of any family that has such checkpoints.

Reads .pth, .pth.tar, .pt and .bin (needs PyTorch; as data, never as code) and .safetensors, in the
namings that ``weights.names`` knows. Writes a model folder for ``create_model(pretrained=FOLDER)``
and ``lska-jax predict FOLDER``. Family and architecture are read off names and shapes where they
are not given; everything has to fit, or all that does not is listed and nothing is written.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lska_jax.models.table import family_of, model_entry
from lska_jax.models.weight_tags import IMAGENET_CLASSES, WeightTag
from lska_jax.weights.checkpoint_file import Checkpoint, open_checkpoint
from lska_jax.weights.class_names import StatedClasses, imagenet_names
from lska_jax.weights.fitting import Fitted, fit, recognise_network
from lska_jax.weights.folder_files import sha256_of
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import (
    check_can_write,
    is_model_folder,
    read_model_folder,
    write_model_folder,
)
from lska_jax.weights.names.naming import Names
from lska_jax.weights.preprocessing_choice import Choice, choose_preprocessing, find_weights
from lska_jax.weights.shards import is_index, shards_of

_SECONDS_BEFORE_PROGRESS = 1.0
# Of timm's weights; the names of these classes are not in this package.
_LARGE_LABEL_SETS = {11821: "ImageNet-12k", 21841: "ImageNet-22k", 21843: "ImageNet-21k"}


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    use_ema: bool = False,
    weights: str | None = None,
    preprocessing: str | None = None,
    class_names: Sequence[str] | None = None,
    license: str = "unknown",
    source: str = "",
    sha256: str = "",
    overwrite: bool = False,
    report: Callable[[str], None] = print,
    **fields: Any,
) -> ModelFacts:
    """Turn a PyTorch checkpoint into a model folder, all of it or none.

    Args:
      checkpoint: the file; or a model folder of timm or transformers, which says all that is asked
        below but class names, licence and source.
      out: the folder to write.
      model: one of ``list_models()``; None reads the architecture off the shapes.
      use_ema: take the averaged weights where the file holds both.
      weights: the tag of published weights that the file holds or descends from, such as "fb_in1k",
        see ``models.weight_tags``: their preprocessing and licence.
      preprocessing: in place of a tag, one that the family's checkpoints have, for VAN "reference"
        or "imagenet". None of both takes what all published weights of the model want, and says so.
      class_names: in label order; None takes those that the file states, with their colours, as
        mmdetection's and mmsegmentation's do, ImageNet's for 1000 classes, and none otherwise.
      license: of the weights, as the card will state it; "unknown" is the tag's.
      source: where the file comes from, for the card.
      sha256: of the file, in hexadecimal; verified if given.
      overwrite: replace a model folder that is there.
      report: receives what was chosen, one line each.
      **fields: fields of the family's config, which shapes show or not; None is not given.
        num_classes=0 leaves the classifier, or a segmentor's or detector's head, out. VAN has k,
        dilation, stem_stride (4 unless given) and layer_norm_epsilon (1e-5 for detection copies,
        segmentors and detectors, 1e-6 otherwise).

    Returns:
      What the folder says about the model.

    Raises:
      ValueError: the file is damaged, holds code, or does not fit, with every mismatch listed; or
        nothing says which preprocessing it wants.
      FileNotFoundError: there is no such file.
      FileExistsError: ``out`` is not empty.
      ImportError: a PyTorch file, and PyTorch is not installed.
    """
    path = Path(checkpoint)
    check_can_write(out, overwrite=overwrite)
    if path.is_dir() and is_model_folder(path):
        asked = {
            **{"model": model, "weights": weights, "preprocessing": preprocessing},
            **{"sha256": sha256 or None, "use_ema": use_ema or None, **fields},
        }
        _refuse_options(path, [name for name, value in asked.items() if value is not None])
        return _import_folder(path, out, class_names, license, source, overwrite, report)
    if weights is not None and preprocessing is not None:
        raise ValueError(
            f"weights={weights!r} has a preprocessing of its own; leave out "
            f"preprocessing={preprocessing!r}."
        )
    entry = None if model is None else model_entry(model)
    given = {name: value for name, value in fields.items() if value is not None}
    with _progress(path) as bar:
        opened = open_checkpoint(path, use_ema=use_ema, with_head=given.get("num_classes") != 0)
        hashes = _verified_hashes(path, sha256)
        names, inferred = recognised = recognise_network(opened.arrays, path)
        _check_preprocessing(names, preprocessing)
        tag = weights and find_weights(names, inferred, weights, model=model)
        if tag and entry is None:
            entry = model_entry(tag.model)
        fitted = fit(opened.arrays, path, recognised=recognised, entry=entry, given=given)
        fitted.check()
        config = fitted.config
        stated = StatedClasses()
        if class_names is None and len(opened.classes.names or ()) == config.num_classes:
            stated = opened.classes
        elif class_names is None and "num_classes" not in given:
            _refuse_nameless(path, config.num_classes)
        choice = choose_preprocessing(fitted, preprocessing=preprocessing, tag=tag or None)
        bar.total = fitted.count
        arrays = fitted.arrays(show_progress=lambda matches: _counted(matches, bar))
    facts = ModelFacts(
        config=config,
        preprocessing=choice.preprocessing.for_channels(config.in_channels),
        class_names=stated.names or _class_names(class_names, config.num_classes),
        class_colors=stated.colors,
        license=choice.tag.license if choice.tag and license == "unknown" else license,
        source={
            **({"origin": source} if source else {}),
            **_origin(choice.tag),
            **hashes,
            "naming": fitted.naming,
            "weights": "averaged" if opened.is_averaged else "as trained",
        },
    )
    write_model_folder(out, facts, arrays, overwrite=overwrite)
    for line in _report(fitted, opened, arrays, choice):
        report(line)
    if stated.names:
        colors = "" if stated.colors is None else " and colours"
        report(
            f"Labels: the {config.num_classes} names{colors} in the file; --labels FILE for others."
        )
    elif facts.class_names is None and config.num_classes:
        report("Labels: none; classes are shown by number. --labels FILE names them.")
    elif class_names is None and facts.class_names is not None:
        report("Labels: ImageNet's 1000 classes in their usual order; --labels FILE for others.")
    return facts


def _import_folder(
    folder: Path,
    out: str | Path,
    class_names: Sequence[str] | None,
    license: str,
    source: str,
    overwrite: bool,
    report: Callable[[str], None],
) -> ModelFacts:
    """Turn a model folder of another library into one of this package."""
    stated, arrays = read_model_folder(folder)
    layout = stated.source.get("layout")
    if layout is None:
        raise ValueError(f"{folder} is a model folder of this package already; use it as it is.")
    # What the folder is from now on is this package's, with hashes.
    kept = {k: v for k, v in stated.source.items() if k not in ("layout", "sha256")}
    origin = {"origin": source} if source else {}
    hashes = _verified_hashes(folder / str(stated.source["file"]), "")
    if class_names is None and stated.class_names is None:
        _refuse_nameless(folder, stated.config.num_classes)
    facts = dataclasses.replace(
        stated,
        class_names=stated.class_names if class_names is None else tuple(class_names) or None,
        license=stated.license if license == "unknown" else license,
        source={**origin, "imported_from": f"a folder of {layout}", **kept, **hashes},
    )
    write_model_folder(out, facts, arrays, overwrite=overwrite)
    prepared = facts.preprocessing
    report(f"Imported {folder}, a folder of {layout}: {facts.description}.")
    report(f"Preprocessing as it states: mean {prepared.mean}, std {prepared.std}.")
    report("It records no hash, so that its weights could not be verified.")
    return facts


def _refuse_options(folder: Path, given: Sequence[str]) -> None:
    if given:
        raise ValueError(
            f"{folder} says itself what its weights are; {', '.join(given)} go with one of the "
            "files in it. Leave them out, or give the file."
        )


def _progress(path: Path) -> Any:
    from tqdm import tqdm

    return tqdm(
        desc=f"importing {path.name}",
        unit=" arrays",
        # No rate and no estimate: opening the file is no array, and takes longest.
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}",
        delay=_SECONDS_BEFORE_PROGRESS,
        leave=False,
    )


def _counted(matches: list[Any], bar: Any) -> Iterable[Any]:
    for match in matches:
        yield match
        bar.update()


def _verified_hashes(path: Path, wanted: str) -> dict[str, Any]:
    found = sha256_of(path)
    if wanted and found != wanted.lower():
        raise ValueError(f"{path} has SHA-256 {found}, not {wanted.lower()}: fetch it again.")
    hashes: dict[str, Any] = {"file": path.name, "file_sha256": found}
    if is_index(path):
        hashes["parts_sha256"] = {part.name: sha256_of(part) for part in shards_of(path)}
    return hashes


def _origin(tag: WeightTag | None) -> dict[str, str]:
    if tag is None:
        return {}
    return {"tag": tag.name, **({"hub": tag.hub} if tag.hub else {})}


def _check_preprocessing(names: Names, preprocessing: str | None) -> None:
    if preprocessing is not None and preprocessing not in names.preprocessings:
        raise ValueError(
            f"preprocessing={preprocessing!r} is unknown; allowed for {names.family.name}: "
            f"{', '.join(names.preprocessings)}."
        )


def _refuse_nameless(path: Path, num_classes: int) -> None:
    if num_classes in _LARGE_LABEL_SETS:
        raise ValueError(
            f"{path} has a classifier of the {num_classes} classes of "
            f"{_LARGE_LABEL_SETS[num_classes]}, whose names this package does not have. Pass "
            "num_classes=0 (--num_classes 0) to leave it out, for features and fine-tuning; or "
            "keep it with --labels FILE, which names the classes, or --labels none, which shows "
            "them by number."
        )


def _class_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    if class_names is None:
        return imagenet_names() if num_classes == IMAGENET_CLASSES else None
    return tuple(class_names) or None


def _report(
    fitted: Fitted, opened: Checkpoint, arrays: Mapping[str, Any], choice: Choice
) -> list[str]:
    """Return what was chosen, one line each."""
    config = fitted.config
    count = sum(a.size for p, a in arrays.items() if not p.endswith(("/mean", "/var")))
    lines = [
        f"Imported {fitted.path}, naming {fitted.naming}: {family_of(config).describe(config)}, "
        f"{count:,} parameters.",
        *opened.notes,
    ]
    if not config.num_classes:
        is_left_out = len(fitted.stored) < len(opened.arrays)
        why = "The classifier was left out" if is_left_out else "There is no classifier in the file"
        lines.append(f"{why}: the model returns pooled features.")
    lines += fitted.names.import_notes(fitted.naming, config)
    dtypes: Mapping[str, int] = Counter(a.dtype for a in opened.arrays.values())
    cast = [name for name in dtypes if name in ("float16", "bfloat16", "float64")]
    if cast:
        lines.append(f"Converted from {', '.join(cast)} to float32.")
    return [*lines, choice.note]
