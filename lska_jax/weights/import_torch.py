"""Import PyTorch weights of the family.

Reads .pth, .pth.tar, .pt and .bin (needs PyTorch; as data, never as code) and .safetensors, of the
reference's LSKA and VAN, their detection and segmentation copies, and Hugging Face's VAN. Writes a
model folder for ``create_model(pretrained=FOLDER)`` and ``lska-jax predict FOLDER``.
Architecture and k are read off the shapes where they are not given; everything has to fit, or all
that does not is listed and nothing is written.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lska_jax.models.table import Preprocessing, model_entry
from lska_jax.models.van import VANConfig
from lska_jax.nn.layers import LAYER_NORM_EPSILON
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, default_dilation
from lska_jax.weights.architecture import Inferred, array_shapes, describe, infer_architecture
from lska_jax.weights.checkpoint_file import Checkpoint, open_checkpoint
from lska_jax.weights.class_names import IMAGENET_CLASSES, imagenet_names
from lska_jax.weights.conversion import convert
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import check_can_write, sha256_of, write_model_folder

# The mean and std of ImageNet's pixels, and the crop that Hugging Face's copies state.
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875)
PREPROCESSINGS = {"reference": Preprocessing(), "imagenet": IMAGENET}
DETECTION_LAYER_NORM_EPSILON = 1e-5

_PREPROCESSING_NOTES = {
    "reference": (
        "reference",
        "Preprocessing: mean = std = 0.5 and crop 0.9, the reference's own; ImageNet's mean and "
        "std would cost accuracy silently.",
    ),
    "backbone": (
        "imagenet",
        "PLEASE NOTE - preprocessing: ImageNet's mean and std, as recipes for detection and "
        "segmentation have them. A backbone as it came from classification was trained with 0.5: "
        "--preprocessing reference.",
    ),
    "detection": (
        "reference",
        "PLEASE NOTE - preprocessing: mean = std = 0.5 and crop 0.9, since the file has a "
        "classifier: that is the reference's own. Recipes for detection and segmentation have "
        "ImageNet's: --preprocessing imagenet.",
    ),
    "hugging_face": (
        "reference",
        "PLEASE NOTE - preprocessing: mean = std = 0.5 and crop 0.9, with which these weights were "
        "trained. The config beside Hugging Face's copies states ImageNet's mean and std and crop "
        "0.875 for the same weights; with those they lose accuracy without any error. To take them "
        "all the same: --preprocessing imagenet.",
    ),
}
_SECONDS_BEFORE_PROGRESS = 1.0


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    k: int | None = None,
    dilation: int | None = None,
    use_ema: bool = False,
    preprocessing: str | None = None,
    class_names: Sequence[str] | None = None,
    license: str = "unknown",
    source: str = "",
    sha256: str = "",
    stem_stride: int = 4,
    layer_norm_epsilon: float | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> ModelFacts:
    """Turn a PyTorch checkpoint into a model folder, all of it or none.

    Args:
      checkpoint: the file.
      out: the folder to write.
      model: one of ``list_models()``; None reads the architecture off the shapes.
      k: extent of the large kernel; None reads it off the shapes.
      dilation: d, where it is not the reference's for k.
      use_ema: take the averaged weights where the file holds both.
      preprocessing: "reference" or "imagenet"; None takes what the naming's weights were trained
        with, and says so.
      class_names: in label order; None is ImageNet's for 1000 classes and none otherwise.
      license: of the weights, as the card will state it.
      source: where the file comes from, for the card.
      sha256: of the file, in hexadecimal; verified if given.
      stem_stride: stride of the first convolution, which no shape shows.
      layer_norm_epsilon: None is 1e-5 for detection copies and 1e-6 otherwise.
      overwrite: replace a model folder that is there.
      report: receives what was chosen, one line each.

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
    if preprocessing is not None and preprocessing not in PREPROCESSINGS:
        raise ValueError(
            f"preprocessing={preprocessing!r} is unknown; allowed: {', '.join(PREPROCESSINGS)}."
        )
    if model is not None:
        model_entry(model)
    with _progress(path) as bar:
        opened = open_checkpoint(path, use_ema=use_ema)
        file_hash = _verified_hash(path, sha256)
        inferred = _infer(opened, path)
        config = dataclasses.replace(
            _choose_config(inferred, path, model=model, k=k, dilation=dilation),
            stem_stride=stem_stride,
            layer_norm_epsilon=(
                _usual_epsilon(inferred.naming)
                if layer_norm_epsilon is None
                else layer_norm_epsilon
            ),
        )
        bar.total = len(array_shapes(config))
        arrays = convert(
            opened.arrays,
            array_shapes(config),
            attention=config.attention,
            naming=inferred.naming,
            refusal=_refusal(path, config, inferred),
            show_progress=lambda matches: _counted(matches, bar),
        )
    is_backbone = inferred.naming == "detection" and not config.num_classes
    usual, note = _PREPROCESSING_NOTES["backbone" if is_backbone else inferred.naming]
    chosen = preprocessing or usual
    names = _class_names(class_names, config.num_classes)
    facts = ModelFacts(
        config=config,
        preprocessing=PREPROCESSINGS[chosen].for_channels(config.in_channels),
        class_names=names,
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
    report(f"Imported {path}, naming {inferred.naming}: {describe(config)}, {count:,} parameters.")
    for line in opened.notes + _notes(opened, config, inferred):
        report(line)
    report(note if preprocessing is None else f"Preprocessing: {chosen}, as asked for.")
    if names is None and config.num_classes:
        report("Labels: none; classes are shown by number. --labels FILE names them.")
    elif class_names is None and names is not None:
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


def _infer(opened: Checkpoint, path: Path) -> Inferred:
    try:
        return infer_architecture({name: a.shape for name, a in opened.arrays.items()})
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}.") from error


def _choose_config(
    inferred: Inferred, path: Path, *, model: str | None, k: int | None, dilation: int | None
) -> VANConfig:
    """Return the config that the file has to fit: what was asked for, completed by its shapes."""
    fields = {name: inferred.fields[name] for name in ("num_classes", "in_channels")}
    if model is None:
        names = ("attention", "dims", "depths", "ffn_ratios")
        fields |= {name: inferred.fields[name] for name in names}
    else:
        entry = model_entry(model)
        fields |= {"attention": entry.attention, **entry.size._asdict()}
    fields["in_channels"] = fields["in_channels"] or 3
    unclear = [name for name, value in fields.items() if _is_unclear(value)]
    if unclear:
        raise ValueError(
            f"{path} does not show the network's {', '.join(unclear)}: arrays are missing or have "
            "impossible shapes. Pass --model to see every one listed."
        )
    is_trivial = fields["attention"].endswith("_trivial")
    if dilation is not None and is_trivial:
        raise ValueError(f"{fields['attention']} has no dilation, got --dilation {dilation}.")
    if k is None:
        k = _k_of_shapes(inferred, path, dilation=dilation, has_model=model is not None)
    is_usual = is_trivial or dilation is None or dilation == default_dilation(k)
    config = VANConfig(k=k, dilation=None if is_usual else dilation, **fields)
    array_shapes(config)
    return config


def _is_unclear(value: object) -> bool:
    """Tell whether a field, or a stage's entry in it, could not be read off the shapes."""
    if isinstance(value, tuple):
        return not value or not all(value)
    return value is None


def _k_of_shapes(inferred: Inferred, path: Path, *, dilation: int | None, has_model: bool) -> int:
    sizes = inferred.fields.get("kernel_sizes", ())
    if inferred.fields.get("k") is not None and dilation is None:
        return inferred.fields["k"]
    if has_model and not any(sizes):
        return DEFAULT_KERNEL_SIZE
    if len(sizes) == 2 and all(sizes):
        local, dilated = sizes
        d = (local + 1) // 2
        k = d * (dilated - 1) + local
        if dilation == d:
            return k
        raise ValueError(
            f"{path} has kernels of size {local}, then {dilated}, which is no cascade of the "
            f"reference: it would be k={k} with dilation {d}"
            f"{'' if dilation is None else f', asked for was {dilation}'}. Exchanged kernels look "
            f"like this. If they are meant: --k {k} --dilation {d}."
        )
    raise ValueError(
        f"{path} does not show k: its large kernels have the sizes {sizes}. Pass --model and --k "
        "to see every array that does not fit."
    )


def _usual_epsilon(naming: str) -> float:
    return DETECTION_LAYER_NORM_EPSILON if naming == "detection" else LAYER_NORM_EPSILON


def _refusal(path: Path, config: VANConfig, inferred: Inferred) -> str:
    lines = [f"{path} does not fit {describe(config)}; nothing was written."]
    differences = [
        f"{name} {getattr(config, name)}, the file's shapes say {value}"
        for name, value in inferred.fields.items()
        if name in ("attention", "k", "dims", "depths", "ffn_ratios")
        and not _is_unclear(value)
        and value != getattr(config, name)
    ]
    if differences:
        lines.append("Asked for: " + "; ".join(differences) + ".")
    return "\n".join(lines)


def _class_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    if class_names is None:
        return imagenet_names() if num_classes == IMAGENET_CLASSES else None
    return tuple(class_names) or None


def _notes(opened: Checkpoint, config: VANConfig, inferred: Inferred) -> list[str]:
    notes = []
    if not config.num_classes:
        notes.append("There is no classifier in the file: the model returns pooled features.")
    if inferred.naming == "detection":
        notes.append(f"LayerNorm epsilon {config.layer_norm_epsilon:g}, that of these copies.")
    dtypes: Mapping[str, int] = Counter(a.dtype for a in opened.arrays.values())
    cast = [name for name in dtypes if name in ("float16", "bfloat16", "float64")]
    if cast:
        notes.append(f"Converted from {', '.join(cast)} to float32.")
    return notes
