"""Write the report of robustness results: ``lska-jax report RESULTS_FILE...``.

Prints the summary table, and writes tables, pictures and one page that shows them into a folder.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lska_jax.robustness.report.command import build_parser, load_all, run
from lska_jax.robustness.report.terminal import terminal_table
from lska_jax.robustness.report.write import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; a mistake ends in one readable message."""
    parser = build_parser("lska_jax.robustness.report", __doc__)
    parser.add_argument("--sample_sheet", type=Path, help="a picture of corrupted samples to show")
    parser.add_argument("--title", default="Robustness", help="of the page (default: %(default)s)")
    arguments = parser.parse_args(argv)

    def write() -> Path:
        summaries = load_all(arguments.results)
        path = write_report(
            summaries,
            arguments.out,
            sample_sheet=arguments.sample_sheet,
            title=arguments.title,
            conditions={"Results": ", ".join(map(str, arguments.results))},
        )
        print(terminal_table(summaries))
        return path

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
