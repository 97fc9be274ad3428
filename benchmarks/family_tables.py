"""Tables and picture of ``benchmarks.families``: cost measured here, accuracy as published."""

from pathlib import Path
from typing import Any

from benchmarks.families import (
    BATCH_SIZES,
    COMPILED,
    EAGER,
    FOLDED,
    MEMORY_OF,
    MODELS,
    MODES,
    NAME,
    OURS,
)
from benchmarks.results import NOT_YET_RUN, markdown_table
from lska_jax.models.weight_tags import measured, weights_of

PUBLISHED = "published"
_NONE = "none"
# Of timm's results, in the order of the table.
_SETS = ("imagenet", "real", "v2", "a", "r", "sketch")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Markdown tables, one a mode and batch size."""
    found = {}
    for mode in MODES:
        for batch_size in BATCH_SIZES:
            header = ["Model", "Parameters, M", "GMACs", "JAX, ms an image"]
            header += ["JAX folded, ms"] if mode == "inference" else []
            header += ["eager, ms", "compiled, ms", "JAX over eager", "JAX over compiled"]
            if (mode, batch_size) == MEMORY_OF:
                header += ["JAX memory, MB", "eager memory, MB", "ratio"]
            lines = [
                _line(result, model, mode, batch_size, width=len(header))
                for of_size in MODELS.values()
                for model in of_size
            ]
            found[f"{NAME} {mode} {batch_size}"] = markdown_table(header, lines)
    return found


def _line(
    result: dict[str, Any], model: str, mode: str, batch_size: int, *, width: int
) -> list[str]:
    rows = {
        row["contender"]: row
        for row in result["rows"]
        if (row["model"], row["mode"], row["batch_size"]) == (model, mode, batch_size)
    }
    names = [OURS, FOLDED] if mode == "inference" else [OURS]
    if OURS not in rows:
        return [model, NOT_YET_RUN, *[""] * (width - 2)]
    ours = rows[OURS]
    best = min((rows[n] for n in names), key=lambda row: row["seconds"])
    eager = min((rows[n] for n in EAGER if n in rows), key=lambda r: r["seconds"], default=None)
    compiled = rows.get(COMPILED)
    line = [
        model,
        f"{ours['parameters'] / 1e6:.1f}",
        f"{ours['macs'] / 1e9:.2f}",
        *(_milliseconds(rows[name], batch_size) for name in names),
        _milliseconds(eager, batch_size),
        _milliseconds(compiled, batch_size),
        _ratio(eager, best),
        _ratio(compiled, best),
    ]
    if len(line) == width:
        return line
    bytes_of = [row and row["memory_bytes"] for row in (ours, eager)]
    megabytes = [f"{count / 1e6:,.0f}" if count else _NONE for count in bytes_of]
    return [*line, *megabytes, f"{bytes_of[0] / bytes_of[1]:.2f}" if all(bytes_of) else _NONE]


def _milliseconds(row: dict[str, Any] | None, batch_size: int) -> str:
    return _NONE if row is None else f"{1e3 * row['seconds'] / batch_size:.1f}"


def _ratio(theirs: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    return _NONE if theirs is None else f"{theirs['seconds'] / ours['seconds']:.2f}"


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw families.png: published top-1 against the time of an image, areas by parameters."""
    from benchmarks import drawing

    figure, panels = drawing.new_panels(1, 2, size=(11, 5), sharey=True)
    families = list(dict.fromkeys(row["family"] for row in result["rows"]))
    style = drawing.styles(families)
    for panel, mode in zip(panels[0], MODES, strict=True):
        for row in _fastest(result, mode):
            top1 = _published_top1(row["model"])
            if top1 is None:
                continue
            milliseconds = 1e3 * row["seconds"] / row["batch_size"]
            colour = style[row["family"]]["color"]
            size = 12 * row["parameters"] / 1e6
            panel.scatter(milliseconds, top1, s=size, color=colour, alpha=0.6)
            panel.annotate(row["model"].replace("_", " "), (milliseconds, top1), fontsize=7,
                           xytext=(0, -12), textcoords="offset points", ha="center")  # fmt: skip
        panel.set_xlim(left=0, right=1.25 * max(panel.get_xlim()[1], 1.0))
        panel.margins(y=0.15)
        panel.set_xlabel(
            f"{mode}, milliseconds an image (batch {BATCH_SIZES[0]}, JAX)\narea: parameters"
        )
    panels[0][0].set_ylabel("published ImageNet top-1, %")
    drawing.save(figure, folder / f"{NAME}.png")


def published() -> str:
    """Return the Markdown table of what others measured, of weights from ImageNet-1K alone.

    Top-1 in percent: the paper's own, then timm's results at 224 px on ImageNet's validation set,
    its ReaL labels, ImageNet-V2, -A and -R (of 200 classes) and -Sketch. VAN's are its README's.
    """
    lines = []
    for of_size in MODELS.values():
        for model in of_size:
            tag = _trained_on_imagenet_alone(model)
            known = measured(model, tag) if tag else {}
            results = known.get("timm_top1", {})
            at_224 = next((found for size, found in results.items() if size.startswith("224@")), {})
            figures = [known.get("paper_top1"), *(at_224.get(name) for name in _SETS)]
            shown = ["" if figure is None else f"{figure:.1f}" for figure in figures]
            lines.append([model, tag or "none known", *shown, NOT_YET_RUN])
    header = ["Model", "weights", "paper", "ImageNet", "ReaL", "V2", "A", "R", "Sketch", "mCE"]
    return markdown_table(header, lines)


def _trained_on_imagenet_alone(model: str) -> str | None:
    """Return the weights that saw ImageNet-1K and nothing larger before, which would be unfair."""
    weights = weights_of(model).items()
    return next((t for t, w in weights if "_ft_" not in t and w.num_classes == 1000), None)


def _published_top1(model: str) -> float | None:
    tag = _trained_on_imagenet_alone(model)
    known = measured(model, tag) if tag else {}
    top1: float | None = known.get("paper_top1")
    return top1


def _fastest(result: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    """Return our faster row of every network in a mode, at the smaller batch."""
    best: dict[str, dict[str, Any]] = {}
    for row in result["rows"]:
        is_ours = row["contender"] in (OURS, FOLDED)
        if is_ours and row["mode"] == mode and row["batch_size"] == BATCH_SIZES[0]:
            known = best.get(row["model"], row)
            best[row["model"]] = min(known, row, key=lambda r: r["seconds"])
    return list(best.values())
