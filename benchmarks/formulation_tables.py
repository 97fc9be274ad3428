"""The Markdown table of what ``benchmarks.tune`` measured on a GPU, from the package's table."""

import json
from typing import Any

from benchmarks.results import markdown_table
from lska_jax.ops.formulations import TABLE_PATH

NAME = "formulations"
_TIMED = ("xla", "shift", "toeplitz")
_LEFT_OUT = "-"


def tables() -> dict[str, str]:
    """Return {name of the table: Markdown}: microseconds of every formulation at every site."""
    part = json.loads(TABLE_PATH.read_text())["gpu"]
    header = ["Kernel", "dilation", "map", "dtype"]
    header += [f"{name}, µs" for name in _TIMED]
    header += [f"{name}, taps' gradient, µs" for name in _TIMED] + ["auto"]
    lines = []
    for row in part["rows"]:
        kernel, maps = row["kernel_size"], (*row["map_size"], row["channels"])
        times = row["milliseconds"]
        line = ["x".join(map(str, kernel)), str(row["dilation"]), "x".join(map(str, maps))]
        line += [row["dtype"]]
        for step in ("forward", "weight_gradient"):
            line += [_microseconds(times[step].get(name)) for name in _TIMED]
        forward, _, weight_gradient = row["formulations"]
        lines.append([*line, f"{forward}, {weight_gradient}"])
    return {f"{NAME} gpu": f"{part['source']}\n\n{markdown_table(header, lines)}"}


def _microseconds(milliseconds: Any) -> str:
    return _LEFT_OUT if milliseconds is None else f"{1e3 * milliseconds:,.0f}"
