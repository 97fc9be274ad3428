"""The options of ``lska-jax train`` for images without a config: ``--data PHOTOS``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lska_jax.commands import frame

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_OPTIONS = ("model", "start", "epochs", "val", "image_size", "batch_size", "learning_rate")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, and what may be asked for with it."""
    group = parser.add_argument_group("images of your own, without a config")
    add = group.add_argument
    add(
        "--data",
        metavar="PLACE",
        help="a folder of class folders, with or without split folders; an uncompressed .tar of "
        "it; a .csv of path,label; or the name of a prepared TFDS set",
    )
    add("--model", metavar="NAME", help="default: that of --from, else van_lska_tiny")
    add(
        "--from",
        dest="start",
        metavar="PLACE",
        help=f"weights to start from: {frame.MODEL_PLACES}, or published weights such as "
        "convnext_tiny.fb_in1k",
    )
    add("--epochs", type=frame.positive(int), metavar="N")
    add(
        "--val",
        type=frame.positive(float),
        metavar="SHARE",
        help="held out of every class where the data has no split for it (default: 0.2)",
    )
    add("--image_size", type=frame.positive(int), metavar="N", help="side, in pixels")
    add("--batch_size", type=frame.positive(int), metavar="N", help="images a step")
    add("--learning_rate", type=frame.positive(float), metavar="X", help="at its highest")


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Tell whether the command line names images in place of a config.

    Raises:
      ValueError: it names both, or has an option that needs --data without it.
    """
    # lska-jax evaluate shares the reading of configs, not these options.
    if getattr(arguments, "data", None) is None:
        given = [name for name in _OPTIONS if getattr(arguments, name, None) is not None]
        if given:
            option = "from" if given[0] == "start" else given[0]
            raise ValueError(
                f"--{option} goes with --data PLACE; a config is changed by --config.KEY=VALUE."
            )
        return False
    if arguments.config_place:
        raise ValueError(
            "--config and --data are both there. Give --data alone, or --config with "
            "--config.data.source=..."
        )
    if arguments.eval_only:
        raise ValueError(
            "--eval_only takes the run's own config: give --workdir, and "
            "--config.data.source=folder:PLACE for other images."
        )
    return True


def make_config(arguments: argparse.Namespace) -> ConfigDict:
    """Return the config that suits the images, and print what was chosen and why."""
    from lska_jax.training.own_photos import Wishes, config_for_images

    chosen = config_for_images(
        Wishes(
            data=arguments.data,
            model=arguments.model,
            start=arguments.start or "",
            epochs=arguments.epochs,
            held_out=arguments.val,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
        )
    )
    print("Chosen for these images:")
    for remark in chosen.remarks:
        print(f"- {remark}")
    place = workdir(arguments) / "config.json"
    print(
        f"- All settings will be in {place}; the same run again: lska-jax train --config {place} "
        "--workdir OTHER",
        flush=True,
    )
    return chosen.config


def workdir(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run: --workdir, or one with the name of the data."""
    if arguments.workdir:
        return Path(arguments.workdir)
    place = str(arguments.data).rstrip("/")
    name = Path(place.partition(":")[2] or place).expanduser().absolute().name
    return Path("runs", re.sub(r"[^\w.]+", "-", name.removesuffix(".tar").removesuffix(".csv")))
