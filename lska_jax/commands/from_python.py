"""Train, evaluate and check from Python: what the commands do, in another's process.

For notebooks, other programs and threads: no flags are parsed, the process is neither restarted nor
ended, an interrupt saves and raises, and handlers of signals are put back afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lska_jax.commands import own_data
from lska_jax.commands.config_option import find_config, load_config

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def train(
    config: str | Path | ConfigDict | None = None,
    *,
    data: str | Path | None = None,
    model: str | None = None,
    start: str | Path = "",
    epochs: int | None = None,
    val: float | None = None,
    seed: int | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    task: str = "classification",
    changes: Mapping[str, Any] = MappingProxyType({}),
    workdir: str | Path | None = None,
    compilation_cache: str | None = None,
) -> dict[str, float]:
    """Train to the end of a schedule, from where the workdir stands.

    Either from a config, or on images of your own, for which every setting is chosen, printed with
    its reason and kept in the workdir's ``config.json``: ``train(data="photos", start="cifar10")``.
    Such a run ends with a page of pictures, ``report/report.html`` in the workdir.

    Args:
      config: a name such as "digits" or "digits:35", the path of a config file, or a config; None
        with ``data``.
      data: a folder of class folders, a tar of it, a CSV file of path and label, or the name of a
        TFDS set. What follows is for it alone, up to ``task``.
      model: one of ``list_models()``; None takes that of ``start``, else ``van_lska_tiny``.
      start: weights to start from, in any place of a model; what --from is on the command line.
      epochs: how often the training images are seen.
      val: share of every class that is held out where the data has no split for it.
      seed: of the draw of what is held out, and of the run; None is 0.
      image_size: side, in pixels.
      batch_size: images a step.
      learning_rate: at its highest.
      task: "classification", or "masked_images", which learns without labels.
      changes: values of the config by dotted key, ``{"training.freeze": ("stem",)}``; what
        --config.KEY=VALUE is on the command line.
      workdir: folder of the run; the same folder again resumes. None is runs/NAME, for data and
        for a config by name or path.
      compilation_cache: folder that keeps compiled programs, "off", or None for the usual one.

    Returns:
      The last evaluation: metrics by name.

    Raises:
      ValueError: the config is wrong, or does not fit the data or the devices; neither a config
        nor data is given, or both.
      OSError: the workdir cannot be written.
      Interrupted: Ctrl-C, or the interrupt of a notebook; every finished step is saved, and the
        same call continues.
      KeyboardInterrupt: the same before the first step, when there is nothing to save.
    """
    started = time.monotonic()
    asked: dict[str, Any] = {
        **{"model": model, "start": str(start), "epochs": epochs, "held_out": val, "task": task},
        **{"image_size": image_size, "batch_size": batch_size, "learning_rate": learning_rate},
        **{"seed": seed},
    }
    if (config is None) == (data is None):
        raise ValueError("Give a config, or data= for images of your own: one of the two.")
    if data is None:
        _check_for_data_only(asked)
    else:
        from lska_jax.training.own_photos import Wishes

        workdir = own_data.workdir(data, workdir)
        config = own_data.choose_config(Wishes(data=str(data), **asked), workdir=workdir)
    settings, folder = _prepare(
        config, workdir, compilation_cache, is_training=True, changes=changes
    )
    from lska_jax.running.borrowed_signals import BorrowedSignals
    from lska_jax.training import loop
    from lska_jax.training.start_up import StartUp
    from lska_jax.training.trainer import Interrupted

    try:
        with BorrowedSignals() as signals:
            evaluation = loop.train(
                settings, workdir=folder, signals=signals, start_up=StartUp(since=started)
            )
    except Interrupted as interruption:
        raise Interrupted(f"{interruption} The same call continues from there.") from None
    if data is not None:
        own_data.write_page(folder)
    return evaluation


def evaluate(
    config: str | Path | ConfigDict | None = None,
    *,
    workdir: str | Path | None = None,
    checkpoint: str | Path | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
    compilation_cache: str | None = None,
) -> dict[str, float]:
    """Evaluate the best step of a run, or another model, on the config's evaluation split.

    Args:
      config: as in ``train``; None takes that of the run.
      workdir: where ``evaluation.json`` is written; None as in ``train``, or the run.
      checkpoint: a run, a step of it, or another model; None is the workdir.
      changes: as in ``train``: ``{"data.views": "flip"}``.
      compilation_cache: as in ``train``.

    Returns:
      Metrics by name.

    Raises:
      ValueError: the config is wrong, or does not fit the checkpoint, the data or the devices.
      FileNotFoundError: there is no checkpoint.
      Interrupted: Ctrl-C, or the interrupt of a notebook; nothing was written.
    """
    place = checkpoint or workdir
    if config is None and place is not None:
        from lska_jax.training.recorded_config import config_of_run, folder_of_run

        config, workdir = config_of_run(place), workdir or folder_of_run(place)
    if config is None:
        raise ValueError("config is missing; a run as checkpoint or workdir has its own.")
    settings, folder = _prepare(
        config, workdir, compilation_cache, is_training=False, changes=changes
    )
    from lska_jax.running.borrowed_signals import BorrowedSignals
    from lska_jax.training.evaluate_only import evaluate_checkpoint

    with BorrowedSignals() as signals:
        return evaluate_checkpoint(
            settings, workdir=folder, checkpoint=checkpoint or folder, signals=signals
        )


def dry_run(config: str | Path | ConfigDict) -> str:
    """Compile a run's steps for the devices that are here, and say what they need.

    Args:
      config: as in ``train``; its data may be missing.

    Returns:
      What ``lska-jax train --dry_run`` prints: parameters, mesh, steps, and of each step the FLOPs
      and the memory of a device.

    Raises:
      ValueError: the config is wrong, or its batches do not fit the devices.
    """
    from lska_jax.training.config_check import check_against_devices, check_sources
    from lska_jax.training.dry_run import describe_run

    settings = _checked_copy(config)
    check_sources(settings, is_training=True, on_missing=print)
    import jax

    check_against_devices(settings, device_count=jax.device_count())
    return describe_run(settings)


def compile_check(
    config: str | Path | ConfigDict,
    *,
    topology: str,
    only: str | None = None,
    find_batch: int = 0,
) -> dict[str, Any]:
    """Compile a run's steps for devices that are not here; print what they need, and return it.

    Args:
      config: as in ``train``; no data is read.
      topology: a TPU topology, "v5e:4x4", which needs the extra ``tpu``, or GPUs, "cuda:8".
      only: "train" or "evaluation"; None takes both.
      find_batch: as in ``lska-jax compile-check``.

    Returns:
      The figures by step, and "fits": None where that cannot be known.

    Raises:
      ValueError: the config is wrong, the topology unknown, or the batches do not fit it.
      ImportError: libtpu is missing.
    """
    from lska_jax.commands.compile_check import STEPS, check

    if only is not None and only not in STEPS:
        raise ValueError(f"only={only!r} is no step; allowed: {', '.join(STEPS)}.")
    steps = STEPS if only is None else (only,)
    return check(_checked_copy(config), topology=topology, steps=steps, find_batch=find_batch)


def _checked_copy(config: str | Path | ConfigDict) -> ConfigDict:
    from lska_jax.training.config_check import check_config

    if isinstance(config, str | Path):
        settings = load_config(config)
    else:
        settings = config.copy_and_resolve_references()
    check_config(settings)
    return settings


def _prepare(
    config: str | Path | ConfigDict,
    workdir: str | Path | None,
    compilation_cache: str | None,
    *,
    is_training: bool,
    changes: Mapping[str, Any],
) -> tuple[ConfigDict, Path]:
    """Check a config as the command does, and set jax up; return the config and the workdir."""
    from lska_jax.training.config_check import check_against_devices, check_config, check_sources

    if isinstance(config, str | Path):
        settings = load_config(config)
        folder = Path(workdir or find_config(str(config)).workdir)
    elif workdir is None:
        raise ValueError("workdir is missing; a config that is no name or path needs one.")
    else:
        # A copy: what the caller changes later is not what is trained.
        settings, folder = config.copy_and_resolve_references(), Path(workdir)
    _change(settings, changes)
    check_config(settings)
    check_sources(settings, is_training=is_training)
    import jax

    from lska_jax.running.compilation_cache import keep_in_running_process

    keep_in_running_process(compilation_cache)
    try:
        device_count = jax.device_count()
    except (RuntimeError, AssertionError) as error:
        from lska_jax.running.missing_platform import describe_missing_platform

        problem = describe_missing_platform(error)
        if problem is None:
            raise
        raise ValueError(problem) from error
    check_against_devices(settings, device_count=device_count)
    if jax.default_backend() == "cpu":
        from lska_jax.running.huge_pages import explain_huge_pages

        explain_huge_pages()
    return settings, folder


def _check_for_data_only(asked: Mapping[str, Any]) -> None:
    """Refuse what a config decides, where it was asked for beside one."""
    given = [
        "val" if name == "held_out" else name
        for name, value in asked.items()
        if value not in (None, "", "classification")
    ]
    if given:
        raise ValueError(
            f"{given[0]}= goes with data=; a config is changed by changes={{KEY: VALUE}}."
        )


def _change(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Replace values of a config by dotted key.

    Raises:
      ValueError: there is no such key, or a value has the wrong type.
    """
    from lska_jax.training.config import describe_type, has_key, unknown_key_message

    for key, value in changes.items():
        if not has_key(config, key):
            raise ValueError(unknown_key_message(config, key))
        group, _, name = key.rpartition(".")
        parent = config[group] if group else config
        try:
            # Fields of a model may be a number for all stages, or a tuple of one each.
            with parent.ignore_type() if group == "model" else contextlib.nullcontext():
                parent[name] = value
        except TypeError as error:
            raise ValueError(
                f"{key}={value!r} has the wrong type. Allowed: {describe_type(config, key)}."
            ) from error
