"""What XLA's options gain on CPU: ``python -m benchmarks.compiler_options``.

VAN-LSKA-tiny, k = 23, 224 px, float32: inference, folded, at batch 1, 8 and 32, and the train step
of ``benchmarks.model`` at batch 8. One program is compiled once with XLA's own options and once
with each of ``OPTIONS``, and all of them run alternately in one process. Whether an option changes
bits is compared before anything is timed; the largest difference is of the largest output.

``lska_jax.running.compiler_options`` sets those that are worth it.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.results import names_by_vectors
from lska_jax.running.huge_pages import restart_with_huge_pages

NAME = "compiler_options"
NAMES = names_by_vectors(NAME)
PLAIN = "XLA's own"

# Names and values as ``compiler_options`` of jax.jit takes them.
OPTIONS: dict[str, dict[str, Any]] = {
    "prefer_vector_width=512": {"xla_cpu_prefer_vector_width": 512},
    "prefer_vector_width=128": {"xla_cpu_prefer_vector_width": 128},
    "use_fusion_emitters=false": {"xla_cpu_use_fusion_emitters": False},
    "experimental_enable_tiling_propagation=true": {
        "xla_cpu_experimental_enable_tiling_propagation": True
    },
    "use_xnnpack=true": {"xla_cpu_use_xnnpack": True},
    "fast_min_max=true": {"xla_cpu_enable_fast_min_max": True},
    "parallel_codegen_split_count=1": {"xla_cpu_parallel_codegen_split_count": 1},
    "512 and use_fusion_emitters=false": {
        "xla_cpu_prefer_vector_width": 512,
        "xla_cpu_use_fusion_emitters": False,
    },
}
# Mode and batch size.
CASES = (("inference", 1), ("inference", 8), ("inference", 32), ("train", 8))
_EXPECTED = "10 to 15 minutes on two cores"
_UNKNOWN = "refused by this XLA"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument(
        "--options", nargs="+", metavar="TEXT", help="only options with such a text"
    )
    options = parser.parse_args(argv)
    chosen = {
        name: settings
        for name, settings in OPTIONS.items()
        if not options.options or any(text in name for text in options.options)
    }
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    rows = list(_measure(chosen, is_quick=options.quick))
    result = results.write_result(
        folder, results.name_here(NAME), conditions=conditions, rows=rows, is_quick=options.quick
    )
    for table in tables(result).values():
        print(f"\n{table}")


def _measure(options: dict[str, dict[str, Any]], *, is_quick: bool) -> Iterator[dict[str, Any]]:
    from benchmarks import harness
    from benchmarks.progress import Progress

    cases = CASES[::3] if is_quick else CASES
    progress = Progress(len(cases))
    for mode, batch_size in cases:
        progress.begin(f"{mode}, batch {batch_size}, compiling")
        calls, errors, refused = _compiled(mode, 2 if is_quick else batch_size, options, is_quick)
        progress.begin(f"{mode}, batch {batch_size}")
        timings = harness.measure_alternately(
            calls, seconds_each=4.0, min_repetitions=10, max_repetitions=40, show=progress.show
        )
        for name, timing in timings.items():
            yield {
                "mode": mode,
                "batch_size": batch_size,
                "options": name,
                "difference": errors[name],
                **dataclasses.asdict(timing),
            }
        for name in refused:
            yield {"mode": mode, "batch_size": batch_size, "options": name, "seconds": None}
        progress.end()
    progress.close()


def _compiled(
    mode: str, batch_size: int, options: dict[str, dict[str, Any]], is_quick: bool
) -> tuple[dict[str, Any], dict[str, float], list[str]]:
    """Return calls by the name of their options, how far they are off, and options refused."""
    import jax
    import numpy as np

    from benchmarks import networks
    from benchmarks.model import QUICK_ARCHITECTURE
    from lska_jax import create_model
    from lska_jax.models.fold import fold_batch_norm

    model = create_model("van_lska_tiny", **(QUICK_ARCHITECTURE if is_quick else {}))
    images, labels = networks.random_batch(batch_size, 32 if is_quick else 224, 1000)
    if mode == "inference":
        lowered, arguments = networks.lower_inference(fold_batch_norm(model), images)
    else:
        lowered, arguments = networks.lower_train_step(model, images, labels)
    calls: dict[str, Any] = {}
    errors: dict[str, float] = {}
    refused: list[str] = []
    expected = None
    for name, settings in {PLAIN: {}, **options}.items():
        try:
            program = lowered.compile(compiler_options=settings)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            print(f"{name}: {_UNKNOWN} ({str(error).splitlines()[0]})", flush=True)
            refused.append(name)
            continue
        # Logits, or the loss: gradients of biases before a BatchNorm are nothing but rounding.
        found = np.asarray(jax.tree.leaves(program(*arguments))[0], np.float32)
        expected = found if expected is None else expected
        errors[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
        calls[name] = networks.bind(program, *arguments)
    return calls, errors, refused


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table: a row an option, a ratio over XLA's own a case."""
    from benchmarks.results import NOT_YET_RUN, markdown_table

    rows = {(r["mode"], r["batch_size"], r["options"]): r for r in result["rows"]}
    cases = list(dict.fromkeys(key[:2] for key in rows))
    header = ["Options", *(f"{mode}, batch {size}" for mode, size in cases), "largest difference"]
    plain = [f"{1e3 * rows[*case, PLAIN]['seconds']:,.1f} ms" for case in cases]
    lines = [[PLAIN, *plain, ""]]
    for name in list(dict.fromkeys(key[2] for key in rows)):
        if name == PLAIN:
            continue
        line, differences = [name], []
        for case in cases:
            row = rows.get((*case, name))
            if row is None or row["seconds"] is None:
                line.append(NOT_YET_RUN if row is None else _UNKNOWN)
                continue
            line.append(f"{rows[*case, PLAIN]['seconds'] / row['seconds']:.2f}")
            differences.append(row["difference"])
        worst = max(differences, default=None)
        shown = "" if worst is None else f"{worst:.0e}" if worst else "same bits"
        lines.append([*line, shown])
    return {result["benchmark"]: markdown_table(header, lines)}


if __name__ == "__main__":
    # Without our compiler options: they are what is compared.
    restart_with_huge_pages()
    main(sys.argv[1:])
