"""What a start without labels and a teacher are worth: ``python -m benchmarks.starts``.

Ten labelled digits of each class, drawn by a seed, of scikit-learn's 1,442 for training; 355 are
held out. The network of configs/digits.py learns from the hundred alone; from the hundred after it
has painted masked patches of all 1,442 without their labels (SimMIM); and from the hundred beside
the answers of a teacher, the same network trained on all labels.

Commands are those that a person types, a process each. What is done is kept and not run again.
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.small_trainings import Rows, difference_of, interval_of, train
from lska_jax.data.digits import DigitsSource

NAME = "starts"
SEEDS = (0, 1, 2)
EACH = 10
_EXPECTED = "10 to 20 minutes on two cores"
_KEYS = ("way", "seed")
_ALONE, _MASKED = "labels alone", "from masked images"
_SOFT, _HARD = "with a teacher, soft", "with a teacher, hard"
_TEACHER, _PAINTING = "the teacher itself, all labels", "painting masked patches"
_SHOWN = (_ALONE, _MASKED, _SOFT, _HARD)
# Steps: 5 an epoch of the hundred images, 11 an epoch of all.
_EPOCHS, _PAINTING_EPOCHS, _TEACHER_EPOCHS = 100, 60, 40


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write JSON, print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    options = parser.parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)

    def write(rows: Sequence[results.Row]) -> None:
        results.write_result(folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick)

    known = None if options.quick else results.read_result(folder, NAME)
    rows = Rows(known["rows"] if known else [], keys=_KEYS, write=write)
    with tempfile.TemporaryDirectory() as scratch:
        _measure(rows, Path(scratch), is_quick=options.quick)
    print(f"\n{tables({'rows': rows.all})[NAME]}")


def _measure(rows: Rows, scratch: Path, *, is_quick: bool) -> None:
    """Train everything that is missing; a run that others start from is trained anew if need be."""
    epochs, painting, teaching = (
        (1, 1, 1) if is_quick else (_EPOCHS, _PAINTING_EPOCHS, _TEACHER_EPOCHS)
    )
    seeds = SEEDS[:1] if is_quick else SEEDS
    ways = {
        _ALONE: [],
        _MASKED: ["--config.training.finetune_from=runs/painted{seed}"],
        _SOFT: ["--config.training.teacher=runs/teacher"],
        _HARD: ["--config.training.teacher=runs/teacher", "--config.training.distillation=hard"],
    }
    missing = {
        (way, seed) for seed in seeds for way in ways if not rows.has({"way": way, "seed": seed})
    }
    if {way for way, _ in missing} & {_SOFT, _HARD}:
        words = ("--config", "digits", *_length(teaching))
        taught = train(*words, workdir="runs/teacher", cwd=scratch)
        rows.add({"way": _TEACHER, "seed": 0}, lambda: taught)
    for seed in seeds:
        write_few(scratch / f"few{seed}", seed=seed)
        few = [
            *("--config", "digits", f"--config.data.source=csv:few{seed}/few.csv"),
            *(f"--config.training.seed={seed}", "--config.training.batch_size=20"),
            *_length(epochs),
        ]
        if (_MASKED, seed) in missing:
            words = ("--config", "masked_images:digits", "--config.training.batch_size=128")
            painted = train(
                *(*words, *_length(painting), f"--config.training.seed={seed}"),
                workdir=f"runs/painted{seed}",
                cwd=scratch,
            )
            rows.add({"way": _PAINTING, "seed": seed}, lambda painted=painted: painted)
        for number, (way, more) in enumerate(ways.items()):
            words = [*few, *(word.format(seed=seed) for word in more)]
            workdir = f"runs/{seed}-{number}"
            rows.add(
                {"way": way, "seed": seed},
                lambda words=words, workdir=workdir: train(*words, workdir=workdir, cwd=scratch),
            )


def _length(epochs: int) -> list[str]:
    # No best step is picked: what is reported is the last.
    return [
        f"--config.optimizer.epochs={epochs}",
        f"--config.optimizer.warmup_epochs={min(3, epochs - 1)}",
        f"--config.training.eval_every_epochs={epochs}",
    ]


def write_few(folder: Path, *, seed: int) -> None:
    """Write ``few.csv`` with its images: ten training digits of each class, and all of the test.

    Args:
      folder: to write.
      seed: which are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for split in ("train", "test"):
        source = DigitsSource(split)
        for digit in range(len(source.class_names)):
            own = np.flatnonzero(source.labels == digit)
            if split == "train":
                own = np.random.default_rng([seed, digit]).permutation(own)[:EACH]
            for n in own.tolist():
                name = f"{split}{n}.png"
                Image.fromarray(source[n].image[..., 0]).save(folder / name)
                lines.append((name, digit, split))
    with (folder / "few.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *lines])


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the accuracies as a Markdown table."""
    from benchmarks.results import markdown_table

    rows = [row for row in result["rows"] if "top1" in row]
    alone = [row for row in rows if row["way"] == _ALONE]
    lines = []
    for way in _SHOWN:
        own = [row for row in rows if row["way"] == way]
        if own:
            gain = "" if way == _ALONE else difference_of(own, alone).percent(is_difference=True)
            each = ", ".join(f"{100 * row['top1']:.1f}" for row in own)
            mean = interval_of([row["top1"] for row in own]).percent()
            seconds = f"{np.mean([row['core_seconds'] for row in own]):.0f}"
            lines.append([way, mean, each, gain, seconds])
    for way in (_TEACHER, _PAINTING):
        own = [row for row in result["rows"] if row["way"] == way]
        if own:
            shown = f"{100 * own[0]['top1']:.1f}" if "top1" in own[0] else ""
            seconds = f"{np.mean([row['core_seconds'] for row in own]):.0f}"
            lines.append([way, shown, "", "", seconds])
    header = ["", "Top-1, %", "Each seed", "Gain over labels alone", "Core-seconds a run"]
    return {NAME: markdown_table(header, lines)}


if __name__ == "__main__":
    main(sys.argv[1:])
