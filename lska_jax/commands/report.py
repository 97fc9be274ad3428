"""``lska-jax report``: a page about training runs, or about results of robustness."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lska_jax.commands import frame

_DESCRIPTION = """\
Write one HTML page that needs nothing beside it, with its pictures as files.

Of training runs (their folders): loss, accuracy, learning rate and images/s, several runs in the
same panels; the confusion matrix of the best step, the best and worst classes, the images that it
is most confidently wrong about, a training batch as the network saw it; config and environment.
Without --out the page of one run is written into RUN/report. The pictures go to the run's
TensorBoard too.

Of results files of robustness: tables, pictures, and the summary table, which is printed. With
--against_k shape bias, corruption error and accuracy against k are drawn instead: the paper's
claim as a figure, with its numbers as CSV beside it."""

_EXAMPLES = (
    "lska-jax report runs/digits",
    "lska-jax report runs/k7 runs/k23 runs/k53 --out comparison",
    "lska-jax report robustness/results.jsonl --out report",
    "lska-jax report a/results.jsonl b/results.jsonl --out both --title 'LSKA and LKA'",
    "lska-jax report */results.jsonl --out k --against_k",
)
_DEFAULT_TITLE = "Robustness"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    for path in arguments.places:
        if not path.exists():
            raise FileNotFoundError(f"There is no run and no results file {path}.")
    are_runs = {path.is_dir() for path in arguments.places}
    if len(are_runs) > 1:
        raise ValueError("Give folders of runs or results files of robustness, not both.")
    path = _of_runs(arguments) if are_runs == {True} else _of_robustness(arguments)
    print(f"Wrote {path}.")


def _of_runs(arguments: argparse.Namespace) -> Path:
    if arguments.against_k or arguments.sample_sheet:
        raise ValueError("--against_k and --sample_sheet are for results files of robustness.")
    from lska_jax.analysis.run_report.write import report_runs

    return report_runs(
        arguments.places,
        arguments.out,
        title=arguments.title,
        use_images=not arguments.without_images,
        report=frame.remark,
    )


def _of_robustness(arguments: argparse.Namespace) -> Path:
    if arguments.out is None:
        raise ValueError("--out DIR is missing: where the report is to be written.")
    from lska_jax.robustness.sweep.summary import load_summaries

    summaries = [summary for path in arguments.places for summary in load_summaries(path)]
    if arguments.against_k:
        from lska_jax.robustness.report.shape_against_k import shape_against_k

        return shape_against_k(summaries, arguments.out)
    from lska_jax.robustness.report.terminal import terminal_table
    from lska_jax.robustness.report.write import write_report

    path = write_report(
        summaries,
        arguments.out,
        sample_sheet=arguments.sample_sheet,
        title=arguments.title or _DEFAULT_TITLE,
        conditions={"Results": ", ".join(map(str, arguments.places))},
    )
    print(terminal_table(summaries))
    return path


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax report", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    places_help = "folders of runs, or results.jsonl of sweeps"
    add("places", nargs="+", type=Path, metavar="RUN_OR_RESULTS", help=places_help)
    add("--out", type=Path, metavar="DIR", help="folder to write, made if missing")
    add("--title", help="of the page")
    without_help = "of runs: neither evaluate nor read data; what the folders hold"
    add("--without_images", action="store_true", help=without_help)
    add("--against_k", action="store_true", help="draw the scores against the kernel size")
    add("--sample_sheet", type=Path, metavar="PICTURE", help="corrupted samples to show")
    return parser
