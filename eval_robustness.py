r"""Measure models on corrupted and shifted image sets: ``python eval_robustness.py --model DIR``.

Models of ImageNet's classes, on the sets of the paper, with a report of tables and pictures:

    python eval_robustness.py --model MODEL_DIR --suite paper --data_root DATA --out robustness

Several models are measured in one call and compared: --model a=DIR_A --model b=DIR_B. A set that is
missing is named with where to get it, and stays a hole in the report. With --generate ImageNet-C is
made from the clean images on the device; that needs no download, and works for other data too:

    python eval_robustness.py --model runs/cifar10 --suite imagenet,imagenet_c --generate \
        --clean folder:cifar10.tar --clean_split test --out robustness

Running the same command again goes on where it was stopped. SIGTERM and SIGINT (Ctrl-C) leave with
exit code 75, which says so; every cell that is done is in the results file.
"""

from lska_jax.running import stop_signals

if __name__ == "__main__":
    # Before anything else: a preempted machine does not wait for imports.
    stop_signals.hold_signals()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lska_jax.running.huge_pages import restart_with_huge_pages

USAGE_ERROR = 2
_DEFAULT_OUT = "robustness"


_signals = stop_signals.StopSignals()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    arguments = _build_parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return USAGE_ERROR


def _run(arguments: argparse.Namespace) -> int:
    from lska_jax.running import parallel

    parallel.start_processes(
        coordinator_address=arguments.coordinator_address,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
        distributed=arguments.distributed,
    )
    with parallel.leaving_together():
        return _sweep(arguments)


def _sweep(arguments: argparse.Namespace) -> int:
    import jax

    from lska_jax.robustness.classifier import load_classifier
    from lska_jax.robustness.plan import SweepOptions
    from lska_jax.robustness.report import terminal_table, write_report
    from lska_jax.robustness.samples import SHEET_NAME
    from lska_jax.robustness.sweep import sweep
    from lska_jax.running import parallel
    from lska_jax.running.compilation_cache import use_compilation_cache

    use_compilation_cache(arguments.compilation_cache)
    is_alone = jax.process_count() == 1
    if not is_alone:
        # One that leaves now would leave the others waiting.
        _signals.keep_requests()
    options = SweepOptions(
        suite=arguments.suite,
        data_root=arguments.data_root,
        provenance=arguments.provenance,
        generate=arguments.generate,
        clean=arguments.clean,
        clean_split=arguments.clean_split,
        pixels=arguments.pixels,
        limit=arguments.limit,
        seed=arguments.seed,
        frost_pictures=arguments.frost_pictures,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
    )
    named = [_split_name(model) for model in arguments.model]
    classifiers = [load_classifier(place, name=name) for name, place in named]
    try:
        _signals.keep_requests()
        summaries = sweep(classifiers, options, out=arguments.out, signals=_signals)
    except stop_signals.StopRequested:
        message = "Interrupted: every cell that is done is in the results file."
        stop_signals.leave_to_resume(message, is_alone=is_alone)
    if parallel.is_main_process():
        print(terminal_table(summaries))
        out = Path(arguments.out)
        sheet = out / SHEET_NAME
        page = write_report(
            summaries,
            out / "report",
            sample_sheet=sheet if sheet.is_file() else None,
            conditions=_conditions(arguments),
        )
        print(f"Wrote {page}")
    return 0


def _conditions(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the report says above everything."""
    images = f"at most {arguments.limit:,}" if arguments.limit else "all"
    conditions = {"Suite": arguments.suite, "Images of a cell": images}
    if arguments.clean:
        conditions["Clean images"] = f"{arguments.clean}, split {arguments.clean_split}"
    return conditions


def _split_name(model: str) -> tuple[str | None, str]:
    name, equals, place = model.partition("=")
    return (name, place) if equals and name else (None, model)


class _ListSets(argparse.Action):
    """Print the sets and stop, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from lska_jax.robustness.set_listing import describe_all

        print(describe_all())
        parser.exit()


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python eval_robustness.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]PLACE",
        help="model folder, Hub id, run or checkpoint file; may be given several times",
    )
    add("--list", action=_ListSets, nargs=0, help="print suites and sets, and where to get them")
    add("--suite", default="paper", help="paper, full, smoke, or sets with commas (default: paper)")
    add("--data_root", help="folder of the sets, official or from TFDS (default: TFDS's own)")
    add(
        "--provenance",
        default="auto",
        help="official, tfds, or auto: official where it is there (default: auto)",
    )
    add("--generate", action="store_true", help="make ImageNet-C from the clean images")
    add("--clean", default="", help="clean images, a source as train.py takes (default: ImageNet)")
    add("--clean_split", default="validation", help="split of --clean (default: validation)")
    add(
        "--pixels",
        default="direct",
        help="direct shows images that are stored at 224 pixels as they are; resize treats them "
        "as photos (default: direct)",
    )
    add("--limit", type=int, default=0, help="images a cell, for a first look; 0 takes all")
    add("--seed", type=int, default=0, help="of generated corruptions and --limit (default: 0)")
    add("--frost_pictures", default="", help="folder of the official frost pictures")
    add("--batch_size", type=int, default=256, help="over all devices (default: 256)")
    add("--num_workers", type=int, default=-1, help="decoding processes (default: by the cores)")
    add("--out", default=_DEFAULT_OUT, help=f"folder to write (default: {_DEFAULT_OUT})")
    add("--compilation_cache", help="folder of compiled programs, or off (default: ~/.cache)")
    add(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="several processes: where a cluster or the three options below describe them, always, "
        "never (default: auto)",
    )
    add("--coordinator_address", help="host:port of process 0")
    add("--num_processes", type=int, help="how many processes the sweep has")
    add("--process_id", type=int, help="number of this process, from 0")
    return parser


if __name__ == "__main__":
    restart_with_huge_pages()
    _signals.listen()
    sys.exit(main())
