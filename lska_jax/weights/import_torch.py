"""Import PyTorch weights of any family that has such checkpoints.

Reads .pth, .pth.tar, .pt and .bin (needs PyTorch; as data, never as code) and .safetensors, in the
namings that ``weights.names`` knows. Writes a model folder for ``create_model(pretrained=FOLDER)``
and ``lska-jax predict FOLDER``. Family and architecture are read off names and shapes where they
are not given; everything has to fit, or all that does not is listed and nothing is written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lska_jax.models.build import array_shapes
from lska_jax.models.table import check_fields, model_entry
from lska_jax.weights.checkpoint_file import Checkpoint, open_checkpoint
from lska_jax.weights.class_names import IMAGENET_CLASSES, imagenet_names
from lska_jax.weights.conversion import convert
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import check_can_write, sha256_of, write_model_folder
from lska_jax.weights.names.naming import Inferred, Names, is_unclear
from lska_jax.weights.names.recognition import recognise

_SECONDS_BEFORE_PROGRESS = 1.0


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    use_ema: bool = False,
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
      checkpoint: the file.
      out: the folder to write.
      model: one of ``list_models()``; None reads the architecture off the shapes.
      use_ema: take the averaged weights where the file holds both.
      preprocessing: one that the family's checkpoints have, for VAN "reference" or "imagenet";
        None takes what the naming's weights were trained with, and says so.
      class_names: in label order; None is ImageNet's for 1000 classes and none otherwise.
      license: of the weights, as the card will state it.
      source: where the file comes from, for the card.
      sha256: of the file, in hexadecimal; verified if given.
      overwrite: replace a model folder that is there.
      report: receives what was chosen, one line each.
      **fields: fields of the family's config, which shapes show or not; None is not given. VAN has
        k, dilation, stem_stride (4 unless given) and layer_norm_epsilon (1e-5 for detection copies
        and 1e-6 otherwise).

    Returns:
      What the folder says about the model.

    Raises:
      ValueError: the file is damaged, holds code, or does not fit; every mismatch is listed.
      FileNotFoundError: there is no such file.
      FileExistsError: ``out`` is not empty.
      ImportError: a PyTorch file, and PyTorch is not installed.
    """
    path = Path(checkpoint)
    check_can_write(out, overwrite=overwrite)
    entry = None if model is None else model_entry(model)
    given = {name: value for name, value in fields.items() if value is not None}
    with _progress(path) as bar:
        opened = open_checkpoint(path, use_ema=use_ema)
        file_hash = _verified_hash(path, sha256)
        names, inferred = _recognise(opened, path)
        family = names.family
        if entry is not None and entry.family != family.name:
            raise ValueError(
                f"{path} holds arrays of {family.name}, and {model} is of {entry.family}. Leave "
                f"out --model, or name a model of {family.name}."
            )
        check_fields(family, given, allowed=dict.fromkeys(family.architecture_fields))
        _check_preprocessing(names, preprocessing)
        try:
            config = names.choose_config(inferred, entry=entry, given=given)
        except ValueError as error:
            raise ValueError(f"{path} cannot be imported. {error}") from error
        shapes = array_shapes(config)
        bar.total = len(shapes)
        arrays = convert(
            opened.arrays,
            shapes,
            names=names,
            variant=names.variant_of(config),
            naming=inferred.naming,
            refusal=_refusal(path, config, inferred, names),
            show_progress=lambda matches: _counted(matches, bar),
        )
    usual, note = names.usual_preprocessing(inferred.naming, config)
    chosen = preprocessing or usual
    labels = _class_names(class_names, config.num_classes)
    facts = ModelFacts(
        config=config,
        preprocessing=names.preprocessings[chosen].for_channels(config.in_channels),
        class_names=labels,
        license=license,
        source={
            **({"origin": source} if source else {}),
            "file": path.name,
            "file_sha256": file_hash,
            "naming": inferred.naming,
            "weights": "averaged (EMA)" if use_ema else "as trained",
        },
    )
    write_model_folder(out, facts, arrays, overwrite=overwrite)
    count = sum(a.size for p, a in arrays.items() if not p.endswith(("/mean", "/var")))
    report(
        f"Imported {path}, naming {inferred.naming}: {family.describe(config)}, "
        f"{count:,} parameters."
    )
    for line in opened.notes + _notes(opened, config, names.import_notes(inferred.naming, config)):
        report(line)
    report(note if preprocessing is None else f"Preprocessing: {chosen}, as asked for.")
    if labels is None and config.num_classes:
        report("Labels: none; classes are shown by number. --labels FILE names them.")
    elif class_names is None and labels is not None:
        report("Labels: ImageNet's 1000 classes in their usual order; --labels FILE for others.")
    return facts


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


def _verified_hash(path: Path, wanted: str) -> str:
    found = sha256_of(path)
    if wanted and found != wanted.lower():
        raise ValueError(f"{path} has SHA-256 {found}, not {wanted.lower()}: fetch it again.")
    return found


def _recognise(opened: Checkpoint, path: Path) -> tuple[Names, Inferred]:
    shapes = {name: array.shape for name, array in opened.arrays.items()}
    try:
        names = recognise(shapes)
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}.") from error
    return names, names.infer(shapes)


def _check_preprocessing(names: Names, preprocessing: str | None) -> None:
    if preprocessing is not None and preprocessing not in names.preprocessings:
        raise ValueError(
            f"preprocessing={preprocessing!r} is unknown; allowed for {names.family.name}: "
            f"{', '.join(names.preprocessings)}."
        )


def _refusal(path: Path, config: Any, inferred: Inferred, names: Names) -> str:
    lines = [f"{path} does not fit {names.family.describe(config)}; nothing was written."]
    differences = [
        f"{name} {getattr(config, name)}, the file's shapes say {value}"
        for name, value in inferred.fields.items()
        if name in names.family.architecture_fields
        and name not in ("num_classes", "in_channels")
        and not is_unclear(value)
        and value != getattr(config, name)
    ]
    if differences:
        lines.append("Asked for: " + "; ".join(differences) + ".")
    return "\n".join(lines)


def _class_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    if class_names is None:
        return imagenet_names() if num_classes == IMAGENET_CLASSES else None
    return tuple(class_names) or None


def _notes(opened: Checkpoint, config: Any, of_family: Sequence[str]) -> list[str]:
    notes = []
    if not config.num_classes:
        notes.append("There is no classifier in the file: the model returns pooled features.")
    notes += of_family
    dtypes: Mapping[str, int] = Counter(a.dtype for a in opened.arrays.values())
    cast = [name for name in dtypes if name in ("float16", "bfloat16", "float64")]
    if cast:
        notes.append(f"Converted from {', '.join(cast)} to float32.")
    return notes
