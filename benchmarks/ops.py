"""Time every formulation of the depth-wise convolutions: ``python -m benchmarks.ops``.

Cases: the four 1-D convolutions of one LSKA for k = 7, 23, 53, the 3x3 of the FFN at its expanded
channels, a whole LSKA with 1x1 and gate, and the forms of a 1x1, on the maps of the four stages of
tiny and base at batch 8; forward, and forward + backward. Contenders of one case run alternately on
the same arrays. Ratios are over ``xla``, the grouped convolution of lax, and over PyTorch's faster
memory format.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.models.van_config import SIZES
from lska_jax.running import door

NAME = "ops"
MODES = ("forward", "forward + backward")
CASCADE, FFN, ATTENTION, POINTWISE = "cascade", "FFN 3x3", "LSKA with 1x1 and gate", "1x1"

_BATCH_SIZE = 8
_KERNEL_SIZES = (7, 23, 53)
_EXPECTED = "6 to 10 minutes on two cores"
# What a contender may run a case, in seconds, beyond its five repetitions.
_SECONDS_EACH = 0.15


class Case(NamedTuple):
    """One operation on one map.

    Attributes:
      group: CASCADE, FFN, ATTENTION or POINTWISE.
      model: "tiny" or "base", whose map it is.
      stage: from 1.
      shape: (B, H, W, C) of the input.
      k: extent of the large kernel; 0 where there is none.
      out_channels: of a 1x1.
    """

    group: str
    model: str
    stage: int
    shape: tuple[int, int, int, int]
    k: int = 0
    out_channels: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON and PNG, print the tables."""
    from benchmarks import results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    rows = list(_measure(list(quick_cases() if options.quick else full_cases())))
    result = results.write_result(
        folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick
    )
    for table in tables(result).values():
        print(f"\n{table}")
    draw(result, folder)


def full_cases() -> Iterator[Case]:
    """Yield every case of a full run."""
    for model in ("tiny", "base"):
        size = SIZES[model]
        for index, (channels, ratio) in enumerate(zip(size.dims, size.ffn_ratios, strict=True)):
            side, stage = 56 >> index, index + 1
            shape = (_BATCH_SIZE, side, side, channels)
            hidden = (_BATCH_SIZE, side, side, channels * ratio)
            yield from (Case(CASCADE, model, stage, shape, k) for k in _KERNEL_SIZES)
            yield Case(FFN, model, stage, hidden)
            yield Case(ATTENTION, model, stage, shape, 23)
            if model == "tiny":
                yield Case(POINTWISE, model, stage, shape, out_channels=channels * ratio)


def quick_cases() -> Iterator[Case]:
    """Yield one small case of each kind."""
    yield Case(CASCADE, "tiny", 1, (2, 9, 7, 4), 7)
    yield Case(FFN, "tiny", 1, (2, 9, 7, 16))
    yield Case(ATTENTION, "tiny", 1, (2, 9, 7, 4), 7)
    yield Case(POINTWISE, "tiny", 1, (2, 9, 7, 4), out_channels=16)


def _measure(cases: list[Case]) -> Iterator[dict[str, Any]]:
    import jax

    from benchmarks import harness, operations, results
    from benchmarks.progress import Progress

    use_torch = jax.default_backend() == "cpu" and results.has_torch()
    progress = Progress(len(cases) * len(MODES))
    for case in cases:
        for mode in MODES:
            progress.begin(f"{_shown(case)}, {mode}")
            contenders = _contenders(case, mode=mode, use_torch=use_torch)
            operations.check_agreement(contenders, mode=mode)
            timings = harness.measure_alternately(
                contenders, seconds_each=_SECONDS_EACH, show=progress.show
            )
            for contender, timing in timings.items():
                yield {
                    **case._asdict(),
                    "mode": mode,
                    "contender": contender,
                    **dataclasses.asdict(timing),
                }
            progress.end()
    progress.close()


def _contenders(case: Case, *, mode: str, use_torch: bool) -> dict[str, Any]:
    import jax

    from benchmarks import operations
    from lska_jax import ops

    gated = case.group == ATTENTION
    if case.group == POINTWISE:
        steps = [operations.Step((1, 1), out_channels=case.out_channels)]
        forms = {name: ("auto", name) for name in operations.POINTWISE}
    else:
        steps = [operations.Step((3, 3))] if case.group == FFN else operations.cascade(case.k)
        is_cpu = jax.default_backend() == "cpu"
        names = (operations.ALL_LAX, "auto") if gated else (*ops.implementations(), "auto")
        forms = {
            name: (name, operations.ALL_LAX if name == operations.ALL_LAX else operations.PACKAGE)
            for name in names
            if not (is_cpu and name in operations.ACCELERATOR_ONLY)
        }
    arrays = operations.random_arrays(case.shape, steps, gated=gated)
    contenders = {
        name: operations.jax_call(
            operations.jax_chain(
                steps, implementation=implementation, pointwise=pointwise, gated=gated
            ),
            arrays,
            mode=mode,
        )
        for name, (implementation, pointwise) in forms.items()
    }
    if use_torch:
        for memory_format in operations.TORCH_FORMATS:
            contenders[memory_format] = operations.torch_call(
                steps, arrays, mode=mode, memory_format=memory_format, gated=gated
            )
    return contenders


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Markdown tables by group: milliseconds, and ratios over xla and over PyTorch."""
    from benchmarks.results import markdown_table

    found = {}
    for group in (CASCADE, FFN, ATTENTION, POINTWISE):
        cells = _cells([row for row in result["rows"] if row["group"] == group])
        names = list(dict.fromkeys(name for timings in cells.values() for name in timings))
        ours = [name for name in names if not name.startswith("torch") and name != "xla"]
        has_torch = any(name.startswith("torch") for name in names)
        header = ["Map", *(["k"] if group in (CASCADE, ATTENTION) else []), "Mode"]
        header += [f"{name}, ms" for name in names]
        header += [f"{name} over xla" for name in ours]
        header += [f"{name} over PyTorch" for name in ours] if has_torch else []
        lines = []
        for (shape, k, mode), timings in cells.items():
            best = min((s for n, s in timings.items() if n.startswith("torch")), default=None)
            line = ["x".join(map(str, shape)), *([str(k)] if k else []), mode]
            line += [f"{1e3 * timings[name]:.2f}" for name in names]
            line += [f"{timings['xla'] / timings[name]:.1f}" for name in ours]
            line += [f"{best / timings[name]:.2f}" for name in ours] if best else []
            lines.append(line)
        found[f"{NAME} {group}"] = markdown_table(header, lines)
    return found


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw ops.png: milliseconds of the cascade and of the FFN's 3x3, by map."""
    from benchmarks import drawing

    rows = [row for row in result["rows"] if row["group"] in (CASCADE, FFN)]
    models = list(dict.fromkeys(row["model"] for row in rows))
    style = drawing.styles(list(dict.fromkeys(row["contender"] for row in rows)))
    figure, panels = drawing.new_panels(
        len(MODES), len(models), size=(6.5 * len(models), 8), sharey="row", sharex="col"
    )
    for line, mode in zip(panels, MODES, strict=True):
        for panel, model in zip(line, models, strict=True):
            cells = _cells([r for r in rows if r["mode"] == mode and r["model"] == model])
            for name, look in style.items():
                milliseconds = [1e3 * timings[name] for timings in cells.values()]
                panel.plot(milliseconds, label=name, linestyle="none", markersize=6, **look)
            drawing.scale_axis(panel, [s for timings in cells.values() for s in timings.values()])
            panel.set_title(f"{model}, {mode}")
            labels = [f"{h}x{w}x{c}, {_kernel(k)}" for (_, h, w, c), k, _ in cells]
            panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        line[0].set_ylabel("milliseconds, median")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(style)
    )
    batch = rows[0]["shape"][0]
    figure.suptitle(f"Four 1-D convolutions of one LSKA, and the FFN's 3x3; batch {batch}, float32")
    drawing.save(figure, folder / f"{NAME}.png")


def _cells(
    rows: list[dict[str, Any]],
) -> dict[tuple[tuple[int, ...], int, str], dict[str, float]]:
    """Return {(shape, k, mode): {contender: seconds}}."""
    cells: dict[tuple[tuple[int, ...], int, str], dict[str, float]] = {}
    for row in rows:
        key = (tuple(row["shape"]), row["k"], row["mode"])
        cells.setdefault(key, {})[row["contender"]] = row["seconds"]
    return cells


def _kernel(k: int) -> str:
    return f"k={k}" if k else "3x3"


def _shown(case: Case) -> str:
    shape = "x".join(map(str, case.shape))
    return f"{case.group} {shape}" + (f" k={case.k}" if case.k else "")


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
