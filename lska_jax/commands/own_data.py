"""The options of ``lska-jax train`` for images without a config: ``--data PHOTOS``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lska_jax.commands import frame

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lska_jax.training.own_photos import Wishes

_OPTIONS = (
    *("model", "start", "epochs", "val", "seed", "image_size", "batch_size", "learning_rate"),
    "task",
)


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
    add(
        "--seed",
        type=frame.whole_number,
        metavar="N",
        help="of the draw of what is held out, and of the run (default: 0)",
    )
    add("--image_size", type=frame.positive(int), metavar="N", help="side, in pixels")
    add("--batch_size", type=frame.positive(int), metavar="N", help="images a step")
    add("--learning_rate", type=frame.positive(float), metavar="X", help="at its highest")
    add(
        "--task",
        choices=("classification", "masked_images"),
        help="masked_images learns without labels, for a later --from (default: classification)",
    )


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
    from lska_jax.training.own_photos import Wishes

    wishes = Wishes(
        data=arguments.data,
        model=arguments.model,
        start=arguments.start or "",
        epochs=arguments.epochs,
        held_out=arguments.val,
        seed=arguments.seed,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        **({"task": arguments.task} if arguments.task else {}),
    )
    return choose_config(wishes, workdir=workdir(arguments.data, arguments.workdir))


def choose_config(wishes: Wishes, *, workdir: Path) -> ConfigDict:
    """Return the config that suits the images, and print what was chosen and why.

    Args:
      wishes: what is asked for.
      workdir: folder of the run.
    """
    from lska_jax.training.own_photos import config_for_images

    chosen = config_for_images(wishes)
    print("Chosen for these images:")
    for remark in chosen.remarks:
        print(f"- {remark}")
    place = workdir / "config.json"
    print(
        f"- All settings will be in {place}; the same run again: lska-jax train --config {place} "
        "--workdir OTHER",
        flush=True,
    )
    return chosen.config


def workdir(data: str | Path, given: str | Path | None) -> Path:
    """Return the folder of the run: the one that is given, or one with the name of the data."""
    if given:
        return Path(given)
    place = str(data).rstrip("/")
    name = Path(place.partition(":")[2] or place).expanduser().absolute().name
    return Path("runs", re.sub(r"[^\w.]+", "-", name.removesuffix(".tar").removesuffix(".csv")))


def write_page(workdir: Path) -> None:
    """Write the page of pictures of a run that is over, and say where it is.

    Whatever goes wrong with it is said: the run is complete without it.

    Args:
      workdir: folder of the run.
    """
    import jax

    from lska_jax.analysis.run_report.history import METRICS
    from lska_jax.analysis.run_report.write import DEFAULT_FOLDER, PAGE, report_runs

    page, numbers = workdir / DEFAULT_FOLDER / PAGE, workdir / METRICS
    # Of several processes no other would take part in the evaluation.
    if jax.process_count() > 1:
        print(f"A page of pictures: lska-jax report {workdir}", flush=True)
        return
    try:
        # The same command again trains nothing, and finds its page.
        if not page.is_file() or page.stat().st_mtime < numbers.stat().st_mtime:
            report_runs([workdir], report=frame.remark)
    except (ValueError, OSError, ImportError) as error:
        print(f"No page of pictures: {error}", flush=True)
        return
    print(f"Pictures, the confusion matrix and the worst mistakes: {page}", flush=True)
