"""The Markdown tables of what ``benchmarks.tune`` measured, from the package's table."""

import json
from typing import Any

from benchmarks.results import markdown_table
from lska_jax.ops.formulations import NARROW_CPU, TABLE_PATH, WIDE_CPU, choose, site_of

NAME = "formulations"
_TIMED = ("xla", "shift", "toeplitz")
_LEFT_OUT = "-"


def tables() -> dict[str, str]:
    """Return {name of the table: Markdown}: times of every formulation at every site."""
    table = json.loads(TABLE_PATH.read_text())
    return {f"{NAME} gpu": _gpu(table["gpu"]), f"{NAME} cpu": _cpu(table)}


def _gpu(part: dict[str, Any]) -> str:
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
    return f"{part['source']}\n\n{markdown_table(header, lines)}"


def _cpu(table: dict[str, Any]) -> str:
    """Return both kinds of CPUs side by side; where one was not measured, its choice alone."""
    kinds = {"AVX2": NARROW_CPU, "AVX-512": WIDE_CPU}
    found = {
        kind: {site_of(row): row["milliseconds"] for row in table[part]["rows"]}
        for kind, part in kinds.items()
    }
    lines = []
    for site in dict.fromkeys(site for rows in found.values() for site in rows):
        line = ["x".join(map(str, site.kernel_size)), str(site.dilation)]
        line.append("x".join(map(str, (*site.map_size, site.channels))))
        for kind, part in kinds.items():
            times = found[kind].get(site, {})
            line += [_three(times.get(step, {})) for step in ("forward", "weight_gradient")]
            line.append(", ".join(choose(site, platform=part)))
        lines.append(line)
    header = ["Kernel", "dilation", "map"]
    for kind in kinds:
        header += [f"{kind}: forward, ms", "taps' gradient, ms", "auto"]
    sources = "\n".join(f"- {table[part]['source']}" for part in kinds.values())
    return f"{sources}\n\n{markdown_table(header, lines)}"


def _three(milliseconds: dict[str, float]) -> str:
    if not milliseconds:
        return "not measured"
    times = (milliseconds.get(name) for name in _TIMED)
    return " / ".join(_LEFT_OUT if ms is None else f"{ms:.3g}" for ms in times)


def _microseconds(milliseconds: Any) -> str:
    return _LEFT_OUT if milliseconds is None else f"{1e3 * milliseconds:,.0f}"
