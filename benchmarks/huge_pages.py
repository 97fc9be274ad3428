"""What huge pages gain a train step on CPU: ``python -m benchmarks.huge_pages``.

With glibc's default every step faults its temporaries in anew. glibc reads GLIBC_TUNABLES when a
process starts, so processes with its default and with the settings of ``train.py`` (huge pages, and
freed memory is kept: ``lska_jax.running.huge_pages``) alternate, three each, and each takes the
median of its steps: VAN-LSKA-tiny, k = 23, batch 8, 224 px, float32, in JAX and in PyTorch
(channels_last), as in ``benchmarks.model``.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from lska_jax.running.huge_pages import HUGE_PAGES, VARIABLE

NAME = "huge_pages"
DEFAULT = "glibc's default"

_PROCESSES = 3
_EXPECTED = "3 to 5 minutes on two cores"
_CHILD = "--child"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument(_CHILD, choices=("JAX", "PyTorch"), help="print the seconds of one process")
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(_seconds_of_steps(options.child, is_quick=options.quick)))
        return
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    result = results.write_result(
        folder,
        NAME,
        conditions=conditions,
        rows=_measure(is_quick=options.quick),
        is_quick=options.quick,
    )
    for table in tables(result).values():
        print(f"\n{table}")


def _measure(*, is_quick: bool) -> list[dict[str, Any]]:
    from benchmarks.progress import Progress
    from benchmarks.results import has_torch, run_child

    sides = ["JAX", *(["PyTorch"] if has_torch() else [])]
    medians: dict[tuple[str, str], list[float]] = {}
    processes = 1 if is_quick else _PROCESSES
    progress = Progress(processes * len(sides) * 2)
    for _ in range(processes):
        for side in sides:
            for pages, tunables in ((DEFAULT, ""), (HUGE_PAGES, HUGE_PAGES)):
                progress.begin(f"{side}, {pages}")
                settings = {VARIABLE: tunables}
                seconds = run_child(NAME, _CHILD, side, is_quick=is_quick, environment=settings)
                medians.setdefault((side, pages), []).append(seconds)
                progress.end()
    progress.close()
    return [
        {
            "side": side,
            "pages": pages,
            "seconds": statistics.median(seconds),
            "process_seconds": seconds,
        }
        for (side, pages), seconds in medians.items()
    ]


def _seconds_of_steps(side: str, *, is_quick: bool) -> float:
    from benchmarks import harness, networks
    from benchmarks.model import QUICK_ARCHITECTURE
    from lska_jax import create_model

    model = create_model("van_lska_tiny", **(QUICK_ARCHITECTURE if is_quick else {}))
    images, labels = networks.random_batch(*((2, 32) if is_quick else (8, 224)), 1000)
    if side == "JAX":
        call = networks.jax_train_step(model, images, labels)
    else:
        call = networks.torch_train_step(model, images, labels)["torch channels_last"]
    return harness.measure_alternately({side: call}, seconds_each=5.0)[side].seconds


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table: milliseconds a step with either setting, and their ratio."""
    from benchmarks.results import markdown_table

    seconds = {(row["side"], row["pages"]): row["seconds"] for row in result["rows"]}
    lines = []
    for side in dict.fromkeys(row["side"] for row in result["rows"]):
        default, huge = seconds[side, DEFAULT], seconds[side, HUGE_PAGES]
        lines.append([side, f"{1e3 * default:,.1f}", f"{1e3 * huge:,.1f}", f"{default / huge:.2f}"])
    header = ["", f"{DEFAULT}, ms", "kept huge pages, ms", "default over kept"]
    return {NAME: markdown_table(header, lines)}


if __name__ == "__main__":
    main(sys.argv[1:])
