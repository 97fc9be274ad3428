"""Cost of the four attentions against k: ``python -m benchmarks.cost_against_k``.

The motivation of the paper (arXiv 2309.01439): parameters, FLOPs, memory and time of LKA-trivial,
LSKA-trivial, LKA and LSKA for k = 7 to 65, of the attention alone on the maps of the four stages of
tiny, and of the whole tiny network; forward + backward, batch 8, 224 px, float32, as ``auto`` runs
them. Parameters and FLOPs are counted, memory is what the compiled program says (temporaries,
arguments, outputs), times are medians of runs in which the four forms alternate.

A cell that takes too long to compile or to run, and those of the same form with a larger k, read
"not yet run" with the reason. With ``--tpu`` nothing is timed: the same programs, in bfloat16, are
compiled for one TPU v5e chip, which needs libtpu and no TPU.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cost_cells import ATTENTION, FORMS, NETWORK, CellFailed, Scale, Worker, stage_maps
from lska_jax.running import door

NAME = "cost_against_k"
TPU_NAME = f"{NAME}_tpu"
KERNEL_SIZES = (7, 11, 23, 35, 41, 53, 65)
FULL = Scale(8, 224, {})
QUICK_KERNEL_SIZES = (7,)
QUICK = Scale(1, 32, {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)})

_EXPECTED = "25 to 35 minutes on two cores, less with fewer --kernel_sizes"
_EXPECTED_TPU = "30 to 90 minutes on two cores, less with fewer --kernel_sizes"
# Train steps at two k differ by a tenth, which five steps of each do not tell from noise.
_LEAST_REPETITIONS = {ATTENTION: 5, NETWORK: 15}
_WARM_UPS = 2
_TPU_DTYPE = "bfloat16"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure or compile, write JSON and PNG, print the tables."""
    from benchmarks import cost_tables, results
    from lska_jax.ops import implementations

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--tpu", action="store_true", help="compile for TPU v5e, time nothing")
    parser.add_argument(
        "--cell_seconds",
        type=float,
        default=90.0,
        help="what compiling one form at one k may take, and running it (default: 90)",
    )
    parser.add_argument(
        "--kernel_sizes",
        type=int,
        nargs="+",
        metavar="K",
        help=f"extents to take (default: {' '.join(map(str, KERNEL_SIZES))})",
    )
    parser.add_argument(
        "--implementation",
        choices=("auto", *implementations()),
        default="auto",
        help="of the depth-wise convolutions (default: auto); any other needs --out, and xla's "
        "train steps --cell_seconds 250",
    )
    options = parser.parse_args(argv)
    if options.implementation != "auto" and not (options.out or options.quick):
        parser.error("the tables in the documentation are those of auto: give --out FOLDER")
    if options.tpu:
        results.require("libtpu", "Compiling for TPU", extra="tpu")
    conditions = results.start(_EXPECTED_TPU if options.tpu else _EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    scale, sizes = (QUICK, QUICK_KERNEL_SIZES) if options.quick else (FULL, KERNEL_SIZES)
    dtype = _TPU_DTYPE if options.tpu else scale.dtype
    scale = scale._replace(implementation=options.implementation, dtype=dtype)
    conditions["dtype"] = dtype
    fill = _compile_cells if options.tpu else _measure_cells
    sizes = sorted(options.kernel_sizes or sizes)
    rows: list[dict[str, Any]] = []
    for row in _all_cells(fill, scale, sizes, limit=options.cell_seconds):
        rows.append(row)
        if len(rows) % len(FORMS) == 0:  # a long run that is ended keeps what it has
            results.write_result(
                folder,
                TPU_NAME if options.tpu else NAME,
                conditions=conditions,
                rows=rows,
                is_quick=options.quick,
            )
    found = cost_tables.read(folder, is_quick=options.quick)
    for table in cost_tables.tables(*found).values():
        print(f"\n{table}")
    cost_tables.draw(*found, folder)


def _all_cells(
    fill: Any, scale: Scale, kernel_sizes: Sequence[int], *, limit: float
) -> Iterator[dict[str, Any]]:
    """Yield the row of every part, form and k, filled by ``fill(part, k, workers, ...)``."""
    from benchmarks.progress import Progress

    progress = Progress(2 * len(kernel_sizes))
    # Only one process may hold libtpu, and nothing has to stay compiled there.
    shared = Worker(scale)
    workers = {form: shared if fill is _compile_cells else Worker(scale) for form in FORMS}
    try:
        for part in (ATTENTION, NETWORK):
            reasons: dict[str, str] = {}
            for k in kernel_sizes:
                progress.begin(f"{part}, k={k}")
                live = {form: w for form, w in workers.items() if form not in reasons}
                measured, failed = fill(part, k, live, limit=limit, show=progress.show)
                for form in FORMS:
                    if form in failed:
                        reasons[form] = f"k={k} {failed[form]}"
                    yield {
                        **_counted(form, part, k, scale),
                        "reason": reasons.get(form),
                        **measured.get(form, {}),
                    }
                progress.end()
    finally:
        for worker in workers.values():
            worker.close()
        progress.close()


def _counted(form: str, part: str, k: int, scale: Scale) -> dict[str, Any]:
    """Return the start of a row: what is counted from the architecture."""
    from lska_jax.analysis.complexity import module_cost, network_cost
    from lska_jax.models.van import abstract_attention
    from lska_jax.models.van_config import SIZES, VANConfig

    if part == NETWORK:
        config = VANConfig(attention=form, k=k, **{**SIZES["tiny"]._asdict(), **scale.architecture})
        costs = [network_cost(config, height=scale.image_size, width=scale.image_size)]
    else:
        costs = [
            module_cost(abstract_attention(form, shape[-1], k=k), shape)
            for shape in stage_maps(scale)
        ]
    return {
        "part": part,
        "form": form,
        "k": k,
        "parameters": sum(cost.parameters for cost in costs),
        "flops": sum(cost.flops for cost in costs),
    }


def _build_all(
    request: str, part: str, k: int, workers: dict[str, Worker], *, limit: float, show: Any
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Compile one cell of every form, one after the other; return facts and failures."""
    facts, failed = {}, {}
    for form, worker in workers.items():
        show(f"compiling {form}")
        try:
            worker.ask(request, form, part, k)
            facts[form] = worker.answer(within_seconds=limit)
        except CellFailed as error:
            failed[form] = f"compiling {error}"
    return facts, failed


def _measure_cells(
    part: str, k: int, workers: dict[str, Worker], *, limit: float, show: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Compile and time one k of every form; return the measured part of rows, and failures."""
    from benchmarks import harness

    facts, failed = _build_all("build", part, k, workers, limit=limit, show=show)
    runs = _LEAST_REPETITIONS[part] + _WARM_UPS
    for form in list(facts):
        show(f"trying {form}")
        try:
            for number in range(len(facts[form])):
                for seconds in (limit, limit / runs):  # the first touches all its memory anew
                    workers[form].ask("run", number)
                    workers[form].answer(within_seconds=seconds)
        except CellFailed as error:
            del facts[form]
            failed[form] = f"one run {error}"

    def bind(form: str, number: int) -> Any:
        def run() -> float:
            try:
                workers[form].ask("run", number)
                return workers[form].answer(within_seconds=limit)
            except CellFailed as error:
                failed[form] = f"timing {error}"
                raise

        return run

    timings: dict[str, harness.Timing] = {}
    while facts and not timings:
        calls = {
            f"{form} stage {number + 1}" if part == ATTENTION else form: bind(form, number)
            for form, programs in facts.items()
            for number in range(len(programs))
        }
        try:
            timings = harness.measure_alternately(
                calls,
                seconds_each=1.0,
                min_repetitions=_LEAST_REPETITIONS[part],
                max_repetitions=20,
                time_once=lambda call: call(),
                show=show,
            )
        except CellFailed:  # the others are timed again without it
            facts = {form: programs for form, programs in facts.items() if form not in failed}
    measured = {}
    for form, programs in facts.items():
        own = [timing for label, timing in timings.items() if label.split()[0] == form]
        measured[form] = {
            "seconds": sum(timing.seconds for timing in own),
            "first_stage_seconds": own[0].seconds,
            "timings": [dataclasses.asdict(timing) for timing in own],
            "memory_bytes": max(program["memory_bytes"] for program in programs),
            "compile_seconds": sum(program["compile_seconds"] for program in programs),
        }
    return measured, failed


def _compile_cells(
    part: str, k: int, workers: dict[str, Worker], *, limit: float, show: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Compile one k of every form for TPU; return the compiled part of rows, and failures."""
    facts, failed = _build_all("build_tpu", part, k, workers, limit=limit, show=show)
    compiled = {
        form: {
            "bytes_accessed": sum(program["bytes_accessed"] for program in programs),
            "temporary_bytes": max(program["temporary_bytes"] for program in programs),
        }
        for form, programs in facts.items()
    }
    return compiled, failed


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
