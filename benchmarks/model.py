"""Time whole networks against PyTorch and against all-lax JAX: ``python -m benchmarks.model``.

VAN-LSKA tiny at k = 7, 23, 53 and small at k = 23, 224 px, float32: inference at batch 1, 8, 32 and
a train step (forward, mean cross entropy, gradients of all parameters) at batch 8. All contenders
of one size and mode run alternately on the same images and weights, with all cores on both sides.

- JAX: plain ``jax.jit`` over split state; ``folded`` has its BatchNorms and layer scales folded
  for inference; ``folded bfloat16`` computes in that besides, at k = 23; ``all-lax`` runs the
  depth-wise convolutions as lax's grouped ones. It is slow, so it runs less often, and not at
  batch 32.
- PyTorch: eager, ``inference_mode``, both memory formats, of which the faster counts; ``folded``
  has the same folded, the patch embeddings' by ``torch.nn.utils.fusion``.

``--engines`` times tiny against onnxruntime, OpenVINO and ``torch.compile`` instead, each in a
process of its own: ``benchmarks/engines.py``.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import engines
from benchmarks.results import NOT_YET_RUN
from lska_jax.models.fold import fold_batch_norm
from lska_jax.running import door

NAME = "model"
OURS, FOLDED, ALL_LAX = "JAX", "JAX folded", "JAX all-lax"
BFLOAT16, BFLOAT16_K = "JAX folded bfloat16", 23

# Train steps at two k differ by a tenth, which five steps of each do not tell from noise.
_LEAST_REPETITIONS = {"inference": 5, "train": 15}
_EXPECTED = "15 to 25 minutes on two cores"
_LEFT_OUT = "left out"


class Case(NamedTuple):
    """One size in one mode; all its kernel sizes run alternately.

    Attributes:
      size: key of ``lska_jax.models.table.SIZES``.
      kernel_sizes: k of each network.
      mode: "inference" or "train".
      batch_size: images.
      all_lax: how often the all-lax model runs at most, by k; it is left out where there is none.
    """

    size: str
    kernel_sizes: tuple[int, ...]
    mode: str
    batch_size: int
    all_lax: dict[int, int]


FULL = [
    Case("tiny", (7, 23, 53), "inference", 1, {7: 5, 23: 5, 53: 5}),
    Case("tiny", (7, 23, 53), "inference", 8, {7: 2, 23: 5, 53: 2}),
    Case("tiny", (7, 23, 53), "inference", 32, {}),
    Case("tiny", (7, 23, 53), "train", 8, {7: 2, 23: 3, 53: 2}),
    Case("small", (23,), "inference", 1, {23: 5}),
    Case("small", (23,), "inference", 8, {23: 2}),
    Case("small", (23,), "inference", 32, {}),
    Case("small", (23,), "train", 8, {23: 2}),
]
QUICK_ARCHITECTURE = {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)}
QUICK = [
    Case("tiny", (7,), "inference", 1, {7: 1}),
    Case("tiny", (7, 53), "train", 2, {7: 1}),
]
# By size, mode and batch: the k at which all-lax runs.
_ALL_LAX = {(c.size, c.mode, c.batch_size): c.all_lax for c in (*QUICK, *FULL)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON and PNG, print the tables."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument(
        "--engines", action="store_true", help="the strongest engines instead: benchmarks.engines"
    )
    parser.add_argument(engines.CHILD, nargs=5, help="be the process of one of its contenders")
    options = parser.parse_args(argv)
    if options.serve:
        engines.serve(options.serve, is_quick=options.quick)
        return
    expected = engines.EXPECTED if options.engines else _EXPECTED
    conditions = results.start(expected, is_quick=options.quick)
    folder = results.output_folder(options)
    if options.engines:
        conditions["versions"] |= results.versions_of(engines.VERSIONS_OF)
        rows = list(engines.measure(is_quick=options.quick))
        result = results.write_result(
            folder,
            results.name_here(engines.NAME),
            conditions=conditions,
            rows=rows,
            is_quick=options.quick,
        )
        for table in engines.tables(result).values():
            print(f"\n{table}")
        return
    rows = list(_measure(QUICK if options.quick else FULL, is_quick=options.quick))
    result = results.write_result(
        folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick
    )
    for table in tables(result).values():
        print(f"\n{table}")
    draw(result, folder)


def _measure(cases: list[Case], *, is_quick: bool) -> Iterator[dict[str, Any]]:
    from benchmarks import harness, networks
    from benchmarks.progress import Progress

    use_torch = networks.has_torch()
    progress = Progress(len(cases))
    for case in cases:
        shown = f"{case.size} {case.mode}, batch {case.batch_size}"
        progress.begin(f"{shown}, compiling")
        contenders = _contenders(case, use_torch=use_torch, is_quick=is_quick)
        _check_agreement(contenders, mode=case.mode)
        progress.begin(shown)
        labels = {f"k={k} {name}": (k, name) for k, name in contenders}
        timings = harness.measure_alternately(
            {label: contenders[key] for label, key in labels.items()},
            seconds_each=2.0,
            min_repetitions=_LEAST_REPETITIONS[case.mode],
            max_repetitions=20,
            fewer={f"k={k} {ALL_LAX}": count for k, count in case.all_lax.items()},
            show=progress.show,
        )
        for label, timing in timings.items():
            k, name = labels[label]
            yield {
                "size": case.size,
                "k": k,
                "mode": case.mode,
                "batch_size": case.batch_size,
                "contender": name,
                **dataclasses.asdict(timing),
            }
        progress.end()
    progress.close()


def _contenders(case: Case, *, use_torch: bool, is_quick: bool) -> dict[tuple[int, str], Any]:
    from benchmarks import networks
    from lska_jax import create_model

    image_size, num_classes = (32, 10) if is_quick else (224, 1000)
    images, labels = networks.random_batch(case.batch_size, image_size, num_classes)
    architecture = QUICK_ARCHITECTURE if is_quick else {}
    found: dict[tuple[int, str], Any] = {}
    for k in case.kernel_sizes:

        def build(k: int = k, **config: Any) -> Any:
            return create_model(
                f"van_lska_{case.size}", k=k, num_classes=num_classes, **architecture, **config
            )

        forms = {OURS: build()}
        if k in case.all_lax:
            forms[ALL_LAX] = build(implementation="xla")
        if case.mode == "inference":
            forms[FOLDED] = fold_batch_norm(build())
            if k == BFLOAT16_K:
                forms[BFLOAT16] = fold_batch_norm(build(dtype="bfloat16"))
            for name, model in forms.items():
                found[k, name] = networks.jax_inference(model, images)
            calls = networks.torch_inference(forms[OURS], images) if use_torch else {}
        else:
            for name, model in forms.items():
                found[k, name] = networks.jax_train_step(model, images, labels)
            calls = networks.torch_train_step(forms[OURS], images, labels) if use_torch else {}
        found |= {(k, name): call for name, call in calls.items()}
    return found


def _check_agreement(contenders: dict[tuple[int, str], Any], *, mode: str) -> None:
    """Raise if contenders compute different logits or losses: then they are not comparable."""
    import numpy as np

    expected: dict[int, Any] = {}
    for (k, name), call in contenders.items():
        out = call() if mode == "inference" else call()[0]
        array = np.asarray(out.detach() if hasattr(out, "detach") else out)
        first = expected.setdefault(k, array)
        error = np.abs(array - first).max() / np.abs(first).max()
        # Float32 rounding through 10 to 13 blocks; 8e-7 was seen against the reference's logits.
        # Bfloat16 keeps 8 bits: 4e-3 an operation.
        if not error < (0.1 if name == BFLOAT16 else 1e-4):
            raise ValueError(f"{name} at k={k} differs by {error:.1e} of the largest value.")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Markdown tables of inference, of the train step, and the ratio over k."""
    from benchmarks.results import markdown_table

    found = {}
    for mode in ("inference", "train"):
        lines = []
        for (size, k, batch_size), seconds in _cells(result, mode).items():
            pairs = [(OURS, "torch")] + ([(FOLDED, "torch folded")] if mode == "inference" else [])
            times, ratios = [], []
            for ours, torch in pairs:
                best, layout = _best_torch(seconds, torch)
                times += [_milliseconds(seconds.get(ours)), _milliseconds(best) + layout]
                ratios += [_ratio(best, seconds.get(ours))]
            all_lax = _ALL_LAX.get((size, mode, batch_size), {})
            if mode == "inference":
                missing = NOT_YET_RUN if k == BFLOAT16_K else _LEFT_OUT
                times += [_milliseconds(seconds.get(BFLOAT16), missing)]
            missing = NOT_YET_RUN if k in all_lax else _LEFT_OUT
            times += [_milliseconds(seconds.get(ALL_LAX), missing)]
            ratios += [_ratio(seconds.get(ALL_LAX), seconds[OURS], missing)]
            lines.append([size, str(k), str(batch_size), *times, *ratios])
        header = ["Size", "k", "Batch", "JAX, ms", "PyTorch, ms"]
        ratios = ["JAX over PyTorch"]
        if mode == "inference":
            header += ["JAX folded, ms", "PyTorch folded, ms", "JAX folded bfloat16, ms"]
            ratios += ["both folded"]
        found[f"{NAME} {mode}"] = markdown_table(
            [*header, "all-lax, ms", *ratios, "JAX over all-lax"], lines
        )
    growth = _growth_with_k(result)
    found[f"{NAME} growth"] = (
        f"Train step of tiny, time at k = 53 over k = 7: {growth:.2f}." if growth else NOT_YET_RUN
    )
    return found


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw model.png: images a second of every contender, one panel a mode and batch."""
    from benchmarks import drawing

    panels_of = list(dict.fromkeys((row["mode"], row["batch_size"]) for row in result["rows"]))
    series = (OURS, FOLDED, BFLOAT16, ALL_LAX, "torch", "torch folded")
    style = drawing.styles(series)
    figure, panels = drawing.new_panels(1, len(panels_of), size=(3.6 * len(panels_of), 4))
    for panel, (mode, batch_size) in zip(panels[0], panels_of, strict=True):
        cells = {
            f"{size}\nk={k}": {
                name: _best_torch(seconds, name)[0] if "torch" in name else seconds.get(name)
                for name in series
            }
            for (size, k, batch), seconds in _cells(result, mode).items()
            if batch == batch_size
        }
        drawn = []
        for index, name in enumerate(series):
            shift = 0.1 * (index - len(series) // 2)  # side by side, not one over the other
            points = [
                (i + shift, batch_size / c[name]) for i, c in enumerate(cells.values()) if c[name]
            ]
            drawn += [y for _, y in points]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, linestyle="none", **style[name])
        panel.set_xticks(range(len(cells)), list(cells))
        panel.set_xlim(-0.5, len(cells) - 0.5)
        drawing.scale_axis(panel, drawn)
        panel.set_title(f"{mode}, batch {batch_size}")
    panels[0][0].set_ylabel("images a second (higher is better)")
    handles = {}
    for panel in panels[0]:
        handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    drawing.save(figure, folder / f"{NAME}.png")


def _cells(result: dict[str, Any], mode: str) -> dict[tuple[str, int, int], dict[str, float]]:
    """Return {(size, k, batch size): {contender: seconds}} of one mode."""
    cells: dict[tuple[str, int, int], dict[str, float]] = {}
    for row in result["rows"]:
        if row["mode"] == mode:
            key = (row["size"], row["k"], row["batch_size"])
            cells.setdefault(key, {})[row["contender"]] = row["seconds"]
    return cells


def _best_torch(seconds: dict[str, float], prefix: str) -> tuple[float | None, str]:
    """Return the faster memory format's seconds and its name in brackets."""
    formats = {
        layout: seconds[f"{prefix} {layout}"]
        for layout in ("contiguous", "channels_last")
        if f"{prefix} {layout}" in seconds
    }
    if not formats:
        return None, ""
    best = min(formats, key=lambda layout: formats[layout])
    return formats[best], f" ({best})"


def _growth_with_k(result: dict[str, Any]) -> float | None:
    seconds = {
        k: cell[OURS] for (size, k, _), cell in _cells(result, "train").items() if size == "tiny"
    }
    return seconds[53] / seconds[7] if {7, 53} <= set(seconds) else None


def _milliseconds(seconds: float | None, missing: str = NOT_YET_RUN) -> str:
    return missing if seconds is None else f"{1e3 * seconds:,.1f}"


def _ratio(theirs: float | None, ours: float | None, missing: str = NOT_YET_RUN) -> str:
    return f"{theirs / ours:.2f}" if theirs and ours else missing


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
