"""From a new process to the first train step on CPU: ``python -m benchmarks.first_step``.

Seconds to start Python and JAX, to build the model, to trace, to compile and to run the first step,
and the seconds of a later step; batch 8, 224 px, float32, k = 23, the step of ``benchmarks.model``
(no optimizer). Every figure is from a process of its own without a compilation cache, and the two
forms alternate:

- ``blocks one by one``, as the package runs them: XLA is given every block;
- ``blocks scanned``: the blocks of a stage, which are alike, are one ``lax.scan`` over stacked
  parameters, so that XLA is given one block a stage.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lska_jax.running import door

NAME = "first_step"
AS_IT_IS, SCANNED = FORMS = ("blocks one by one", "blocks scanned")
PHASES = ("start", "build", "trace", "compile", "first step")
LATER = "later step"

_SIZES = ("tiny", "base")
_PROCESSES = 3
_LATER_STEPS = 5
_EXPECTED = "6 to 10 minutes on two cores"
_CHILD = "--child"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON and PNG, print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument(
        _CHILD, nargs=3, metavar=("SIZE", "FORM", "START"), help="print one's seconds since START"
    )
    parser.add_argument("--sizes", nargs="+", default=_SIZES, help="models (default: tiny base)")
    options = parser.parse_args(argv)
    if options.child:
        size, form, start = options.child
        print(json.dumps(_seconds(size, form, float(start), is_quick=options.quick)))
        return
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    result = results.write_result(
        folder,
        NAME,
        conditions=conditions,
        rows=_measure(options.sizes, is_quick=options.quick),
        is_quick=options.quick,
    )
    for table in tables(result).values():
        print(f"\n{table}")
    draw(result, folder)


def _measure(sizes: Sequence[str], *, is_quick: bool) -> list[dict[str, Any]]:
    from benchmarks.progress import Progress
    from benchmarks.results import run_child

    sizes, processes = (sizes[:1], 1) if is_quick else (sizes, _PROCESSES)
    cells = [(size, form) for size in sizes for form in FORMS]
    found: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    progress = Progress(processes * len(cells))
    for _ in range(processes):
        for size, form in cells:
            progress.begin(f"{size}, {form}")
            child = (_CHILD, size, form, str(time.time()))
            found[size, form].append(run_child(NAME, *child, is_quick=is_quick))
            progress.end()
    progress.close()
    return [
        {
            "size": size,
            "form": form,
            "seconds": {
                phase: statistics.median(run[phase] for run in runs) for phase in (*PHASES, LATER)
            },
            "processes": runs,
        }
        for (size, form), runs in found.items()
    ]


def _seconds(size: str, form: str, start: float, *, is_quick: bool) -> dict[str, float]:
    watch = _Stopwatch(start)
    import jax

    from benchmarks import networks
    from benchmarks.harness import seconds_of
    from benchmarks.model import QUICK_ARCHITECTURE
    from lska_jax import create_model
    from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters

    jax.config.update("jax_enable_compilation_cache", False)
    jax.devices()
    watch.lap("start")
    model = create_model(f"van_lska_{size}", **(QUICK_ARCHITECTURE if is_quick else {}))
    jax.block_until_ready(parameters(model))
    watch.lap("build")
    images, labels = networks.random_batch(*((2, 32) if is_quick else (8, 224)), 1000)
    if form == SCANNED:
        functions, params, stats = scanned_blocks(model)
    else:
        functions, params, stats = ModelFunctions(model), parameters(model), batch_stats(model)
    arguments = jax.block_until_ready(jax.device_put((params, stats, images, labels)))
    step = jax.jit(networks.loss_and_gradients(functions))
    watch.skip()
    lowered = step.lower(*arguments)
    watch.lap("trace")
    compiled = lowered.compile()
    watch.lap("compile")
    jax.block_until_ready(compiled(*arguments))
    watch.lap("first step")
    later = [seconds_of(lambda: compiled(*arguments)) for _ in range(_LATER_STEPS)]
    return {**watch.laps, LATER: statistics.median(later)}


class _Stopwatch:
    """Seconds between laps, from a time of ``time.time`` on."""

    def __init__(self, start: float) -> None:
        self.laps: dict[str, float] = {}
        self._last = start

    def lap(self, name: str) -> None:
        """Keep the seconds since the last lap."""
        now = time.time()
        self.laps[name], self._last = now - self._last, now

    def skip(self) -> None:
        """Let the time since the last lap belong to none."""
        self._last = time.time()


class _Scanned:
    """A VAN in training mode whose blocks are scanned; stands in for ``ModelFunctions``."""

    def __init__(self, train: Callable[..., Any]):
        self.train = train


def scanned_blocks(model: Any) -> tuple[Any, Any, Any]:
    """Return functions, parameters and statistics of a VAN with one scan over blocks a stage.

    Args:
      model: a VAN without dropout and drop path.

    Raises:
      ValueError: the blocks of a stage are not alike.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax import lax

    model = nnx.view(model, deterministic=False, use_running_average=False)

    def split(module: Any) -> tuple[Any, Any, Any, Any]:
        return nnx.split(module, nnx.Param, nnx.BatchStat, ...)

    stages, params, stats = [], [], []
    for stage in model.stages:
        around = [split(module) for module in (stage.patch_embedding, stage.norm)]
        blocks = [split(block) for block in stage.blocks]
        if any(block[0] != blocks[0][0] for block in blocks):
            raise ValueError("The blocks of a stage have different graphs and cannot be scanned.")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(b[1:3] for b in blocks))
        stages.append(([(a[0], a[3]) for a in around], (blocks[0][0], blocks[0][3])))
        params.append([*(a[1] for a in around), stacked[0]])
        stats.append([*(a[2] for a in around), stacked[1]])
    head_graph, head_params = nnx.split(model.classifier)

    def train(params: Any, stats: Any, images: Any, *, key: Any) -> tuple[Any, Any]:
        del key
        x, updated = images, []
        for (around, (graph, rest)), own_params, own_stats in zip(
            stages, params[:-1], stats, strict=True
        ):
            embed, norm = (
                nnx.merge(a, p, s, r, copy=True)
                for (a, r), p, s in zip(around, own_params[:2], own_stats[:2], strict=True)
            )

            def run_block(x: Any, arrays: Any, graph: Any = graph, rest: Any = rest) -> Any:
                block = nnx.merge(graph, *arrays, rest, copy=True)
                return block(x), nnx.state(block, nnx.BatchStat)

            x = embed(x)
            x, block_stats = lax.scan(run_block, x, (own_params[2], own_stats[2]))
            x = norm(x)
            updated.append([nnx.state(m, nnx.BatchStat) for m in (embed, norm)] + [block_stats])
        head = nnx.merge(head_graph, params[-1], copy=True)
        return head(jnp.mean(x, axis=(1, 2))), updated

    return _Scanned(train), [*params, head_params], stats


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table: seconds of every phase, and of a later step."""
    from benchmarks.results import markdown_table

    header = ["Size", "Form", *(f"{phase}, s" for phase in PHASES), "to the first step, s"]
    lines = []
    for row in result["rows"]:
        seconds = row["seconds"]
        line = [row["size"], row["form"], *(f"{seconds[phase]:.1f}" for phase in PHASES)]
        total = sum(seconds[phase] for phase in PHASES)
        lines.append([*line, f"{total:.1f}", f"{1e3 * seconds[LATER]:,.0f}"])
    return {NAME: markdown_table([*header, f"{LATER}, ms"], lines)}


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw first_step.png: a bar a form, its phases one on the other."""
    from benchmarks import drawing

    figure, panels = drawing.new_panels(1, 1, size=(8, 4.5))
    panel, rows = panels[0][0], result["rows"]
    labels = [f"{row['size']},\n{row['form']}" for row in rows]
    bottom = [0.0] * len(rows)
    for phase in PHASES:
        heights = [row["seconds"][phase] for row in rows]
        panel.bar(range(len(rows)), heights, 0.6, bottom=bottom, label=phase)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for position, top in enumerate(bottom):
        panel.annotate(f"{top:.1f}", (position, top), ha="center", va="bottom", fontsize=8)
    panel.set_xticks(range(len(rows)), labels, fontsize=8)
    panel.set_ylabel("seconds, median of processes")
    panel.set_title("From a new process to the first train step, batch 8")
    panel.legend()
    drawing.save(figure, folder / f"{NAME}.png")


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
