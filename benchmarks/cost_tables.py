"""Tables and the picture of ``benchmarks.cost_against_k``."""

import json
from pathlib import Path
from typing import Any

from benchmarks.cost_cells import ATTENTION, FORMS, NETWORK

_SHOWN = {
    "lka_trivial": "LKA-trivial",
    "lska_trivial": "LSKA-trivial",
    "lka": "LKA",
    "lska": "LSKA",
}
_TITLES = {
    ATTENTION: "attention alone, one on the map of each stage",
    NETWORK: "whole tiny network",
}
# Key of a row -> title and unit, and what divides it.
_COUNTED = {"parameters": ("parameters, M", 1e6), "flops": ("forward GFLOPs", 1e9)}
_MEASURED = {"memory_bytes": ("CPU memory, MB", 1e6), "seconds": ("CPU time, ms", 1e-3)}
_TPU = {
    "bytes_accessed": ("TPU v5e bytes accessed, GB", 1e9),
    "temporary_bytes": ("TPU v5e temporaries, MB", 1e6),
}
_Rows = list[dict[str, Any]]


def read(folder: Path, *, is_quick: bool) -> tuple[_Rows, _Rows]:
    """Return the rows of the measured and of the TPU result, those that are there."""
    found = []
    for name in ("cost_against_k", "cost_against_k_tpu"):
        path = folder / f"{name}.json"
        result = json.loads(path.read_text()) if path.exists() else {"rows": [], "is_quick": None}
        found.append(result["rows"] if result["is_quick"] in (None, is_quick) else [])
    return found[0], found[1]


def tables(measured: _Rows, tpu: _Rows) -> dict[str, str]:
    """Return a Markdown table for each part; cells without a figure say why below it.

    Args:
      measured: rows of the CPU run, or none.
      tpu: rows of the TPU compile, or none.
    """
    from benchmarks.results import NOT_YET_RUN, markdown_table

    found = {}
    for part in (ATTENTION, NETWORK):
        rows = _merged(part, measured, tpu)
        columns = {**_COUNTED, **_MEASURED}
        if part == ATTENTION:
            columns["first_stage_seconds"] = ("of it stage 1, ms", 1e-3)
        columns |= _TPU
        lines, reasons = [], {}
        for row in rows:
            line = [_SHOWN[row["form"]], str(row["k"])]
            for key, (_, unit) in columns.items():
                line.append(_figure(row[key] / unit) if key in row else NOT_YET_RUN)
            lines.append(line)
            for reason in (row.get("reason"), row.get("tpu_reason")):
                if reason:
                    reasons[f"{_SHOWN[row['form']]}: {reason}."] = None
        header = ["Form", "k", *(title for title, _ in columns.values())]
        notes = "\n".join(f"- Not run, {reason}" for reason in reasons)
        table = markdown_table(header, lines)
        found[f"cost_against_k {part}"] = f"{table}\n\n{notes}" if notes else table
    return found


def draw(measured: _Rows, tpu: _Rows, folder: Path) -> None:
    """Draw cost_against_k.png and cost_against_k_tpu.png, those that have figures of both parts."""
    if measured:
        _draw(measured, [], {**_COUNTED, **_MEASURED}, folder / "cost_against_k.png")
    if {row["part"] for row in tpu if "bytes_accessed" in row} == {ATTENTION, NETWORK}:
        _draw([], tpu, _TPU, folder / "cost_against_k_tpu.png")


def _draw(measured: _Rows, tpu: _Rows, columns: dict[str, tuple[str, float]], path: Path) -> None:
    """Draw a panel for each column: the attention alone above, the network below."""
    from benchmarks import drawing

    style = drawing.styles(FORMS)
    figure, panels = drawing.new_panels(2, len(columns), size=(3.6 * len(columns), 7))
    for line, part in zip(panels, (ATTENTION, NETWORK), strict=True):
        rows = _merged(part, measured, tpu)
        for panel, (key, (title, unit)) in zip(line, columns.items(), strict=True):
            for form in FORMS:
                own = [row for row in rows if row["form"] == form and key in row]
                panel.plot(
                    [row["k"] for row in own],
                    [row[key] / unit for row in own],
                    label=_SHOWN[form],
                    markersize=5,
                    linewidth=1.4,
                    **style[form],
                )
            panel.set_xticks(sorted({row["k"] for row in rows}))
            panel.tick_params(axis="x", labelsize=8)
            drawing.scale_axis(panel, [row[key] / unit for row in rows if key in row])
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("k")
        line[0].set_ylabel(_TITLES[part].replace(", ", ",\n"))
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns_of_legend = len(FORMS) if len(columns) > 2 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns_of_legend)
    drawing.save(figure, path)


def _merged(part: str, measured: _Rows, tpu: _Rows) -> _Rows:
    """Return one row for each form and k, with what the CPU run and the TPU compile know."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in measured:
        if row["part"] == part:
            rows[row["form"], row["k"]] = dict(row)
    for row in tpu:
        if row["part"] == part:
            known = rows.setdefault((row["form"], row["k"]), {**row, "reason": None})
            known |= {key: row[key] for key in _TPU if key in row}
            known["tpu_reason"] = row["reason"] and f"on TPU {row['reason']}"
    return [rows[key] for key in sorted(rows, key=lambda key: (FORMS.index(key[0]), key[1]))]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
