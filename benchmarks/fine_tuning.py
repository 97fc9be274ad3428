"""Fine-tuning against training from scratch, 3 x 200 images: ``python -m benchmarks.fine_tuning``.

The model in the box, ``cifar10`` by name, is fine-tuned with the settings that ``lska-jax train
--data --from`` chooses, and the same network is trained from random numbers, as long and five times
as long. Two tasks: one near to what it was trained on, one far; see ``fine_tuning_sets``. Three
seeds, each with other training images; the test images are held out by all. Then every further step
of docs/your_own_photos.md, once, for its waiting time.

Commands are those of the guide, a process each. What is done is kept and not run again.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fine_tuning_sets import write_far, write_near
from benchmarks.small_trainings import Rows, difference_of, interval_of, run_command, train

NAME = "fine_tuning"
SEEDS = (0, 1, 2)
START = "cifar10"
EACH, HELD_OUT, EPOCHS, MANY_EPOCHS = 200, 300, 10, 50
QUICK_EACH, QUICK_HELD_OUT, QUICK_EPOCHS = 8, 8, 1
TASKS = {
    "near": "cats, frogs and ships of CIFAR-10's test split",
    "far": "digits 3, 5 and 8 on photographs",
}
_EXPECTED = "15 to 30 minutes on two cores"
_KEYS = ("task", "way", "seed", "step")
_ARCHIVE = Path("cifar10_jpeg.tar")
_FINE, _SCRATCH, _LONG = "fine-tuned", "from scratch", "from scratch, five times as long"


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write JSON, print the tables."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--start", default=START, help=f"weights to start from (default: {START})")
    parser.add_argument(
        "--cifar10",
        type=Path,
        default=_ARCHIVE,
        metavar="TAR",
        help=f"CIFAR-10 as class folders in a tar (default: {_ARCHIVE}); without it only the far "
        "task is run",
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument("--options", nargs="*", default=[], help="more of lska-jax train --from")
    options = parser.parse_args(argv)
    tasks = [task for task in options.tasks if task != "near" or options.cifar10.is_file()]
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    start = _place(options.start)

    def write(rows: Sequence[results.Row]) -> None:
        results.write_result(folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick)

    known = None if options.quick else results.read_result(folder, NAME)
    rows = Rows(known["rows"] if known else [], keys=_KEYS, write=write)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS[:1] if options.quick else SEEDS:
            for task in tasks:
                _measure(rows, task, seed, Path(scratch), start, options)
    for table in tables({"rows": rows.all}).values():
        print(f"\n{table}")


def _measure(rows: Rows, task: str, seed: int, scratch: Path, start: str, options: Any) -> None:
    """Train on one drawing of the images in every way, and take the further steps once."""
    is_quick = options.quick
    each, held_out = (QUICK_EACH, QUICK_HELD_OUT) if is_quick else (EACH, HELD_OUT)
    photos = f"{task}{seed}"
    drawing = {"seed": seed, "each": each, "held_out": held_out}
    if task == "near":
        write_near(options.cifar10, scratch / photos, **drawing)
    else:
        write_far(scratch / photos, **drawing)
    epochs = QUICK_EPOCHS if is_quick else EPOCHS
    ways = {
        _FINE: (epochs, ["--from", start, *options.options]),
        _SCRATCH: (epochs, _same_network(start)),
        _LONG: (QUICK_EPOCHS if is_quick else MANY_EPOCHS, _same_network(start)),
    }
    # Mirrored digits are no digits.
    no_flips = ["--config.data.hflip_prob=0"] if task == "far" else []
    for number, (way, (length, words)) in enumerate(ways.items()):
        rows.add(
            {"task": task, "way": way, "seed": seed, "epochs": length},
            lambda words=words, length=length, number=number: train(
                *("--data", photos, "--epochs", str(length), *words, *no_flips),
                f"--config.training.seed={seed}",
                # No best step is picked: what is reported is the last.
                f"--config.training.eval_every_epochs={length}",
                workdir=f"runs/{photos}-{number}",
                cwd=scratch,
            ),
        )
    run = f"runs/{photos}-0"
    if seed != SEEDS[0] or not (scratch / run).is_dir():
        return
    # One image of each class.
    classes = [
        next(path.relative_to(scratch / photos / "test") for path in sorted(folder.iterdir()))
        for folder in sorted((scratch / photos / "test").iterdir())
    ]
    for step, words in _further_steps(run, photos, [*map(str, classes)]).items():
        rows.add(
            {"task": task, "way": _FINE, "seed": seed, "step": step},
            lambda words=words: _times(*words, cwd=scratch),
        )


def _further_steps(run: str, photos: str, images: Sequence[str]) -> dict[str, list[str]]:
    """Return the steps of the guide behind training, as command lines.

    Args:
      run: its folder.
      photos: its images.
      images: some of the test's, below ``photos/test``.
    """
    corruptions = "imagenet,imagenet_c/fog,imagenet_c/contrast"
    return {
        "train the last stage": [
            *("train", "--data", photos, "--from", run, "--epochs", "3"),
            "--config.training.freeze=('stem', 'stage1', 'stage2')",
            *("--workdir", f"{run}-tuned"),
        ],
        "predict": ["predict", run, f"{photos}/test", "--output", f"{run}/predictions.csv"],
        "explain two": [
            *(
                "explain",
                run,
                *(f"{photos}/test/{name}" for name in images[:2]),
                "--out",
                f"{run}/explained",
            ),
            *("--methods", "gradcam,gates"),
        ],
        "evaluate": ["evaluate", "--workdir", run, "--config.data.views=flip"],
        "publish": ["publish", run, "--out", f"{run}/published"],
        "robustness": [
            *("robustness", "--model", f"{run}/published", "--clean", f"folder:{photos}"),
            *("--clean_split", "test", "--suite", corruptions, "--generate"),
            *("--out", f"{run}/robustness"),
        ],
    }


def _times(*words: str, cwd: Path) -> dict[str, float]:
    done = run_command(*words, cwd=cwd)
    return {"seconds": done.seconds, "core_seconds": done.core_seconds}


def _same_network(start: str) -> list[str]:
    """Return options that train the network of some weights from random numbers."""
    from lska_jax.models.table import section_for
    from lska_jax.training.model_places import read_model_facts

    facts = read_model_facts(start)
    section = section_for(facts.config)
    fields = {
        name: value
        for name, value in section.items()
        if name not in ("name", "num_classes") and value is not None
    }
    return [
        *("--model", section["name"], "--image_size", str(facts.preprocessing.image_size)),
        *(f"--config.model.{name}={value}" for name, value in fields.items()),
    ]


def _place(start: str) -> str:
    """Return where weights are, for a command that runs in another folder."""
    return str(Path(start).resolve()) if Path(start).exists() else start


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the accuracies as a Markdown table, and the waiting times as another."""
    from benchmarks.results import markdown_table

    rows = [row for row in result["rows"] if "top1" in row]
    lines = []
    for task, title in TASKS.items():
        fine = [row for row in rows if row["task"] == task and row["way"] == _FINE]
        for way in (_FINE, _SCRATCH, _LONG):
            own = [row for row in rows if row["task"] == task and row["way"] == way]
            if not own:
                continue
            each = ", ".join(f"{100 * row['top1']:.1f}" for row in own)
            gain = "" if way == _FINE else difference_of(fine, own).percent(is_difference=True)
            lines.append(
                [
                    title,
                    way,
                    str(own[0]["epochs"]),
                    interval_of([row["top1"] for row in own]).percent(),
                    each,
                    gain,
                ]
            )
    header = ["Task", "", "Epochs", "Top-1, %", "Each seed", "Fine-tuning gains"]
    return {
        NAME: markdown_table(header, lines),
        f"{NAME} waiting": markdown_table(
            ["Task", "Step", "Seconds", "Core-seconds"], _waiting(result["rows"])
        ),
    }


def _waiting(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a line for the parts of each step that somebody waits for, of the first seed."""
    lines = []
    for row in rows:
        if row["seed"] != SEEDS[0]:
            continue
        step = row.get("step") or f"train, {row['way']}, {row['epochs']} epochs"
        if "ready" in row:
            step += f"; ready to train after {row['ready_seconds']:.0f} s ({row['ready']})"
        lines.append([row["task"], step, f"{row['seconds']:.0f}", f"{row['core_seconds']:.0f}"])
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
