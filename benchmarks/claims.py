"""The short tables of docs/performance.md: which rows and columns of the full ones show a claim."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import engines
from benchmarks.goals import FASTER_PYTORCH, engine_cells
from benchmarks.results import markdown_table

NAME = "claim"
# Of two full tables, and so no excerpt.
ENGINES = f"{NAME} engines"


class Claim(NamedTuple):
    """Part of a full table.

    Attributes:
      table: name of the full table.
      rows: {column: the values it has in the rows that are shown}; {} shows all rows.
      columns: what is shown of them, in this order.
    """

    table: str
    rows: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]


CLAIMS = {
    f"{NAME} cascade": Claim(
        "ops cascade",
        {"k": ("23",), "Map": ("8x56x56x32", "8x28x28x64", "8x14x14x160", "8x7x7x256")},
        ("Map", "Mode", "xla, ms", "torch contiguous, ms", "torch channels_last, ms", "auto, ms")
        + ("auto over xla", "auto over PyTorch"),
    ),
    f"{NAME} inference": Claim(
        "model inference",
        {"k": ("23",)},
        ("Size", "Batch", "JAX, ms", "PyTorch, ms", "JAX folded, ms", "PyTorch folded, ms")
        + ("all-lax, ms", "JAX over PyTorch", "both folded", "JAX over all-lax"),
    ),
    f"{NAME} k": Claim(
        "cost_against_k network",
        {"k": ("7", "41", "65")},
        ("Form", "k", "parameters, M", "forward GFLOPs", "CPU memory, MB", "CPU time, ms"),
    ),
    f"{NAME} TPU": Claim(
        "tpu_bytes step",
        {},
        ("Formulation", "bytes accessed, GB", "of them HBM (our count), GB")
        + ("temporary memory, GB", "bytes accessed over xla"),
    ),
    f"{NAME} GPU": Claim(
        "formulations gpu",
        {"map": ("56x56x64",), "dtype": ("bfloat16",), "Kernel": ("1x5", "1x7", "1x17", "1x53")},
        ("Kernel", "dilation", "xla, µs", "shift, µs", "toeplitz, µs", "auto"),
    ),
    f"{NAME} first step": Claim(
        "first_step",
        {"Form": ("blocks one by one",)},
        ("Size", "trace, s", "compile, s", "first step, s", "to the first step, s")
        + ("later step, ms",),
    ),
}


def excerpt(name: str, full: str) -> str:
    """Return the Markdown table of a claim.

    Args:
      name: key of ``CLAIMS``.
      full: Markdown with the claim's full table in it.

    Raises:
      ValueError: the full table lacks a column, or has no row to show.
    """
    claim = CLAIMS[name]
    header, _, *lines = [_cells(line) for line in full.splitlines() if line.startswith("|")]
    missing = [column for column in (*claim.rows, *claim.columns) if column not in header]
    if missing:
        raise ValueError(f"{claim.table!r} has no column {missing}; it has {', '.join(header)}.")
    found = [dict(zip(header, line, strict=True)) for line in lines]
    kept = [row for row in found if all(row[key] in some for key, some in claim.rows.items())]
    if not kept:
        raise ValueError(f"{claim.table!r} has no row with {dict(claim.rows)} for {name!r}.")
    return markdown_table(
        claim.columns, ([row[column] for column in claim.columns] for row in kept)
    )


def engine_table(folder: Path) -> str:
    """Return the Markdown table of how many times as fast as PyTorch and engines ours is, k = 23.

    Args:
      folder: of the JSON files; a kind of processor that was not measured has no lines.
    """
    rivals = (FASTER_PYTORCH, engines.RUNTIME, engines.OPENVINO)
    lines = []
    for kind, name in (("AVX2", engines.NARROW), ("AVX-512", engines.WIDE)):
        for case, seconds in engine_cells(folder, name).items():
            if case.k != 23:
                continue
            ours = seconds[engines.JAX]
            ratios = [f"{seconds[r] / ours:.2f}" if r in seconds else "" for r in rivals]
            mode = "inference" if case.mode == "inference" else "loss and gradients"
            lines.append([kind, mode, str(case.batch_size), f"{1e3 * ours:,.1f}", *ratios])
    header = ["Processor", "Mode", "Batch", "JAX, ms", *(f"over {rival}" for rival in rivals)]
    return markdown_table(header, lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]
