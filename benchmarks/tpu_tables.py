"""The Markdown tables of what ``benchmarks.tpu_bytes`` compiled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import NOT_YET_RUN, markdown_table

NAME = "tpu_bytes"
_NOTHING = {"all_memories": 0.0, "hbm": 0.0}


def read(folder: Path) -> dict[str, Any] | None:
    """Return what was compiled, or None if nothing was.

    Args:
      folder: where ``tpu_bytes.json`` lies.
    """
    path = folder / f"{NAME}.json"
    return json.loads(path.read_text()) if path.exists() else None


def tables(folder: Path) -> dict[str, str]:
    """Return {name of the table: Markdown}, nothing if nothing was compiled.

    Args:
      folder: where ``tpu_bytes.json`` lies.
    """
    report = read(folder)
    if report is None:
        return {}
    facts = report["conditions"]
    cascades, taken = report.get("cascade", {}), report.get("step", {})
    steps = ", ".join(f"{step['commit']} ({name})" for name, step in taken.items())
    other = {step[name]["commit"] for step in report.get("batches", []) for name in ("xla", "auto")}
    batches = ", ".join(sorted(other)) or NOT_YET_RUN
    conditions = (
        f"Compiled for {facts['topology']}, never run: {facts['batch_per_chip']} images a chip, "
        f"{facts['dtype']}, k = {facts['k']}, jax {facts['jax']}, libtpu {facts['libtpu']}; "
        f"cascades at commit {facts.get('cascade_commit', NOT_YET_RUN)}, steps at "
        f"{steps or NOT_YET_RUN}, other batches at {batches}."
        f"\n\n![{NAME}]({NAME}.png)"
    )
    return {
        f"{NAME} conditions": conditions,
        f"{NAME} cascade": _cascade(cascades),
        f"{NAME} step": _step(taken),
        f"{NAME} batches": _batches(report.get("batches", [])),
        f"{NAME} parts": _parts(taken),
    }


def _cascade(models: Mapping[str, Any]) -> str:
    rows = []
    for model, stages in models.items():
        for stage in stages:
            _, height, width, channels = stage["shape"]
            names = [key.removesuffix(" forward") for key in stage if key.endswith(" forward")]
            rows += [
                [
                    model,
                    f"{height}x{width}x{channels}",
                    name,
                    f"{stage[f'{name} forward']['over_read_and_write']:.2f}",
                    f"{stage[f'{name} forward_backward']['over_lax']:.2f}",
                ]
                for name in names
            ]
    header = ["Stages of", "Map", "Formulation", "forward over one read + write",
              "forward + backward over xla"]  # fmt: skip
    return markdown_table(header, rows)


def _step(steps: Mapping[str, Any]) -> str:
    fields = (
        "bytes_accessed_mb",
        "hbm_mb",
        "temporary_mb",
        "kernels_mb",
        "relayouts_mb",
        "relayouts_around_kernels_mb",
    )
    rows = []
    for name, figures in steps.items():
        over = (
            f"{figures[fields[0]] / steps['xla'][fields[0]]:.2f}" if "xla" in steps else NOT_YET_RUN
        )
        rows.append([name, *(f"{figures[f] / 1e3:.2f}" for f in fields), over])
    header = ["Formulation", "bytes accessed, GB", "of them HBM (our count), GB",
              "temporary memory, GB", "by kernels, GB", "relayouts, GB",
              "of them around kernels, GB", "bytes accessed over xla"]  # fmt: skip
    return markdown_table(header, rows)


def _batches(compiled: Sequence[Mapping[str, Any]]) -> str:
    ratios = ("bytes_accessed_mb", "hbm_mb", "temporary_mb")
    rows = []
    for step in compiled:
        auto, lax = step["auto"], step["xla"]
        around = auto["relayouts_around_kernels_mb"] / 1e3
        rows.append(
            [
                str(step["batch_per_chip"]),
                f"{auto['kernels_mb'] / 1e3:.2f}",
                *(f"{auto[name] / lax[name]:.2f}" for name in ratios),
                f"{around:.2f}",
            ]
        )
    header = ["Images a chip", "by kernels, GB", "bytes accessed, auto over xla",
              "HBM, auto over xla", "temporary memory, auto over xla",
              "relayouts around kernels, GB"]  # fmt: skip
    return markdown_table(header, rows) if rows else f"{NOT_YET_RUN.capitalize()}."


def _parts(steps: Mapping[str, Any]) -> str:
    names = list(steps)

    def largest(part: str) -> float:
        found = (figures["parts_gb"].get(part, _NOTHING) for figures in steps.values())
        return max(f["all_memories"] for f in found)

    parts = {part for figures in steps.values() for part in figures["parts_gb"]}
    rows = []
    for part in sorted(parts, key=largest, reverse=True):
        found = [steps[name]["parts_gb"].get(part, _NOTHING) for name in names]
        rows.append([part, *(f"{f['all_memories']:.2f} / {f['hbm']:.2f}" for f in found)])
    sums = [
        {memory: sum(f[memory] for f in steps[name]["parts_gb"].values()) for memory in _NOTHING}
        for name in names
    ]
    rest = []
    for name, total in zip(names, sums, strict=True):
        accessed, hbm = (steps[name][key] / 1e3 for key in ("bytes_accessed_mb", "hbm_mb"))
        beyond = (accessed - total["all_memories"], max(0.0, hbm - total["hbm"]))
        rest.append(" / ".join(f"{gigabytes:.2f}" for gigabytes in beyond))
    rows.append(["what XLA counts beyond these: whole arrays for their slices", *rest])
    return markdown_table(["Part: GB in all memories / in HBM", *names], rows)
