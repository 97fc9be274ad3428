"""Turn a run into a model folder, or write a model folder anew.

Of a run it takes the best step of the checkpoints, averaged weights if the run kept them, the
preprocessing of the run's config and the class names that were trained.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.heads import head_of
from lska_jax.models.table import COMPUTE_FIELDS, Preprocessing, plain
from lska_jax.tasks.class_order import describe_difference, positions_in, same_order
from lska_jax.tasks.pictures.colours import class_colours
from lska_jax.tasks.table import MASKED_IMAGES, task_entry
from lska_jax.training.checkpoint.load_tree import LoadedTree, load_tree
from lska_jax.training.recorded_config import restore_config
from lska_jax.training.run_record import check_record, class_names_of
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import (
    check_can_write,
    is_model_folder,
    read_model_folder,
    write_model_folder,
)

# Of sources that are folders or files of their own.
_KINDS_OF_PLACES = ("folder", "maps", "ade20k", "coco")


class RunModel(NamedTuple):
    """The model that a run trained.

    Attributes:
      facts: what a model folder says about it.
      arrays: parameters and statistics by path.
      folder: the checkpoint they are from.
      step: its global step.
      is_averaged: whether they are the average (EMA).
    """

    facts: ModelFacts
    arrays: dict[str, np.ndarray]
    folder: Path
    step: int
    is_averaged: bool


def publish(
    run: str | Path,
    out: str | Path,
    *,
    use_ema: bool | None = None,
    step: int | str = "best",
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    dtype: str = "float32",
    about: str = "",
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> ModelFacts:
    """Write a run's checkpoint as a model folder, or a model folder as another.

    Args:
      run: a run's folder, its checkpoints folder, or one step's folder; or a model folder.
      out: the model folder to write.
      use_ema: averaged or trained weights; None takes the average where the run has one, as
        evaluation does.
      step: a number, "best" or "latest".
      class_names: in label order, to show instead of those that were trained; None takes these.
      license: of the weights; None is "unknown", or that of the model folder.
      dtype: in which they are stored, see ``lska_jax.weights.half_precision``.
      about: Markdown that the card says besides.
      overwrite: replace a model folder that is there.
      report: receives what was chosen, one line each.

    Raises:
      FileNotFoundError: there is no checkpoint, or not this step.
      CheckpointDamaged: the checkpoint is not what was saved, or its record not of its types.
      FileExistsError: ``out`` is not empty.
      ValueError: no average was kept, the checkpoint does not tell its config, the number of
        class names is wrong, or they are those that were trained in another order; a model folder
        with a step or an average.
    """
    check_can_write(out, overwrite=overwrite)
    if is_model_folder(Path(run)):
        if use_ema is not None or step != "best":
            raise ValueError(
                f"{run} is a model folder: it has neither steps nor averages to choose."
            )
        facts, arrays = read_model_folder(run)
        names = _renamed(class_names, facts.class_names, report)
        facts = dataclasses.replace(facts, class_names=names, license=license or facts.license)
        write_model_folder(out, facts, arrays, dtype=dtype, about=about, overwrite=overwrite)
        return facts
    model = read_run(
        run, use_ema=use_ema, step=step, class_names=class_names, license=license, report=report
    )
    write_model_folder(
        out, model.facts, model.arrays, dtype=dtype, about=about, overwrite=overwrite
    )
    report(
        f"Took step {model.step} of {model.folder}, "
        f"{'averaged' if model.is_averaged else 'trained'} weights: {model.facts.description}."
    )
    prepared = model.facts.preprocessing
    report(f"Preprocessing of the run: mean {prepared.mean}, std {prepared.std}.")
    return model.facts


def read_run(
    run: str | Path,
    *,
    use_ema: bool | None = None,
    step: int | str = "best",
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    report: Callable[[str], None] = print,
) -> RunModel:
    """Read the model that a run trained; arguments and errors are those of ``publish``."""
    loaded = load_tree(run, step=step)
    settings = loaded.metadata.get("config")
    if not isinstance(settings, dict):
        raise ValueError(f"{loaded.folder} was saved without its config; it cannot be published.")
    check_record(loaded.metadata, where=loaded.folder)
    arrays, is_averaged = _arrays(loaded, use_ema)
    try:
        config, prepared = _architecture(settings["model"]), _preprocessing(settings)
        if settings.get("task") == MASKED_IMAGES:
            config, arrays = _without_head(config, arrays)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The config in {loaded.folder} is none of a run ({type(error).__name__}: {error})."
        ) from error
    names = _class_names(loaded, class_names, report)
    # Evaluation takes the average where there is one: of the other weights nothing was measured.
    is_evaluated = is_averaged or not loaded.tree.get("ema")
    evaluation = (loaded.metadata.get("evaluation") or {}) if is_evaluated else {}
    facts = ModelFacts(
        config=config,
        preprocessing=prepared.for_channels(config.in_channels),
        class_names=names,
        class_colors=class_colours(config.num_classes) if head_of(config) else None,
        is_multi_label=bool(settings["data"].get("multi_label", False)),
        license=license or "unknown",
        source={
            "trained_with": "lska_jax",
            "data": _public_name(settings["data"]["source"]),
            "step": loaded.step,
            "weights": "averaged (EMA)" if is_averaged else "as trained",
            **_schedule(settings),
            **{name: value for name, value in evaluation.items() if value is not None},
        },
    )
    return RunModel(facts, arrays, loaded.folder, loaded.step, is_averaged)


def _arrays(loaded: LoadedTree, use_ema: bool | None) -> tuple[dict[str, np.ndarray], bool]:
    averaged = loaded.tree.get("ema")
    if use_ema and not averaged:
        raise ValueError(
            f"{loaded.folder} holds no averaged weights: the run had training.ema_decay=0. Leave "
            "out --ema."
        )
    is_averaged = bool(averaged) and use_ema is not False
    chosen: dict[str, Any] = loaded.tree["ema"] if is_averaged else loaded.tree
    return {**chosen["params"], **chosen["batch_stats"]}, is_averaged


def _architecture(section: dict[str, Any]) -> Any:
    """Return the config of a run's model without the compute choices of its training."""
    kept = {name: value for name, value in section.items() if name not in COMPUTE_FIELDS}
    return config_of(plain(kept))


def _without_head(config: Any, arrays: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a network whose last layer is no classifier as one that returns features."""
    config = dataclasses.replace(config, num_classes=0)
    return config, {path: arrays[path] for path in array_shapes(config)}


def _preprocessing(settings: dict[str, Any]) -> Preprocessing:
    data = settings["data"]
    channels = settings["model"]["in_channels"]

    def each(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values) * channels if len(values) == 1 else tuple(values)

    return Preprocessing(
        mean=each(data["mean"]),
        std=each(data["std"]),
        image_size=data["image_size"],
        crop_pct=data["crop_pct"],
        interpolation=data["interpolation"],
        # Runs of before 0.2 do not have the keys.
        crop_mode=data.get("crop_mode", "center"),
        long_side=data.get("long_side", 0),
    )


def _schedule(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a card says of a run's training, as far as its config has it."""
    asked = (("optimizer", "epochs"), ("training", "batch_size"), ("training", "seed"))
    return {
        name: settings[section][name]
        for section, name in asked
        if name in settings.get(section, {})
    }


def _public_name(source: str) -> str:
    """Return a source without the folders that it lies in, which are nobody else's business."""
    kind, colon, place = source.partition(":")
    return f"{kind}:{Path(place).name}" if kind in _KINDS_OF_PLACES and colon else source


def _class_names(
    loaded: LoadedTree, given: Sequence[str] | None, report: Callable[[str], None]
) -> tuple[str, ...] | None:
    """Return the names to publish: those given, or those that were trained."""
    trained = class_names_of(loaded.metadata)
    if given is None and "class_names" not in loaded.metadata:
        return _class_names_of_data(loaded.metadata["config"], report)
    return _renamed(given, trained, report)


def _renamed(
    given: Sequence[str] | None, trained: tuple[str, ...] | None, report: Callable[[str], None]
) -> tuple[str, ...] | None:
    """Return the names that were given in place of those that were trained, or these.

    Raises:
      ValueError: they are the same in another order.
    """
    if given is None:
        return trained
    given = tuple(given)
    if trained and not same_order(given, trained):
        if positions_in(given, trained) is not None:
            difference = describe_difference(
                given, trained, what="the given list", other_what="what was trained"
            )
            raise ValueError(f"The class names are in another order than the labels: {difference}.")
        report(f"Classes renamed from {', '.join(trained[:10])} to {', '.join(given[:10])}.")
    return given or None


def _class_names_of_data(
    settings: dict[str, Any], report: Callable[[str], None]
) -> tuple[str, ...] | None:
    """Return the names in the data of a run of an older version, which did not keep them."""
    try:
        config = restore_config(settings)
        task = task_entry(config).build(config)
        examples = task.open_split(source=config.data.source, split=config.data.eval_split)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        report(
            f"Labels: none, the run's data cannot be opened ({error}). --labels FILE names them."
        )
        return None
    report("The checkpoint does not say its classes; they are those of its data as it is now.")
    return task.class_names(examples)
