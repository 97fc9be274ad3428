"""``lska-jax report``: turn results of robustness into tables, pictures and a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lska_jax.commands import frame

_DESCRIPTION = """\
Turn results files of robustness into tables, pictures and one page that shows them, and print the
summary table. With --against_k draw shape bias, corruption error and accuracy against k instead:
the paper's claim as a figure, with its numbers as CSV beside it."""

_EXAMPLES = (
    "lska-jax report robustness/results.jsonl --out report",
    "lska-jax report a/results.jsonl b/results.jsonl --out both --title 'LSKA and LKA'",
    "lska-jax report */results.jsonl --out k --against_k",
)
_DEFAULT_TITLE = "Robustness"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    from lska_jax.robustness.sweep.summary import load_summaries

    summaries = [summary for path in arguments.results for summary in load_summaries(path)]
    if arguments.against_k:
        from lska_jax.robustness.report.shape_against_k import shape_against_k

        path = shape_against_k(summaries, arguments.out)
    else:
        from lska_jax.robustness.report.terminal import terminal_table
        from lska_jax.robustness.report.write import write_report

        path = write_report(
            summaries,
            arguments.out,
            sample_sheet=arguments.sample_sheet,
            title=arguments.title,
            conditions={"Results": ", ".join(map(str, arguments.results))},
        )
        print(terminal_table(summaries))
    print(f"Wrote {path}.")


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax report", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="RESULTS_FILE", help="a sweep's results.jsonl")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write, made if missing")
    add("--against_k", action="store_true", help="draw the scores against the kernel size")
    add("--sample_sheet", type=Path, metavar="PICTURE", help="corrupted samples to show")
    add("--title", default=_DEFAULT_TITLE, help=f"of the page (default: {_DEFAULT_TITLE})")
    return parser
