"""Time whole networks on the accelerator that is here: ``python -m benchmarks.accelerator``.

VAN-LSKA at k = 23, 224 px, 64 images on one GPU or TPU, bfloat16 and float32: train step (forward,
mean cross entropy, gradients of all parameters) and inference. Contenders of one case run
alternately on the same images and weights:

- JAX: ``auto``, the formulations of ``lska_jax/ops/formulations.json``; ``all-lax``, every
  depth-wise convolution as lax's grouped one; ``pallas``, every one as a kernel (on CPU, where
  ``--quick`` can run, it would be interpreted and is left out).
- PyTorch on the same GPU: eager, ``torch.autocast`` for bfloat16, tf32 for float32, both memory
  formats, of which the faster counts.
"""

import concurrent.futures
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

NAME = "accelerator"
FORMS = {"JAX": "auto", "JAX all-lax": "xla", "JAX pallas": "pallas"}
DTYPES = ("bfloat16", "float32")
MODES = ("train", "inference")

_EXPECTED = "more than 5 minutes, most of it to compile"
_K = 23
_BATCH_SIZE = 64


class Case(NamedTuple):
    """One network in one mode and dtype."""

    size: str
    mode: str
    dtype: str
    batch_size: int


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the JSON file after each mode, and print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny"], help="of VAN-LSKA (default: tiny)")
    options = parser.parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    if conditions["backend"].startswith("cpu") and not options.quick:
        parser.error("there is no GPU or TPU here; on CPU run python -m benchmarks.model")
    dtypes = DTYPES[:1] if options.quick else DTYPES
    conditions["dtype"] = ", ".join(dtypes)
    folder = results.output_folder(options)
    rows: list[dict[str, Any]] = []
    batch_size = 2 if options.quick else _BATCH_SIZE
    for size in options.sizes:
        for mode in MODES:
            cases = [Case(size, mode, dtype, batch_size) for dtype in dtypes]
            rows += _measure(cases, is_quick=options.quick)
            result = results.write_result(
                folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick
            )
    for table in tables(result).values():
        print(f"\n{table}")


def _measure(cases: list[Case], *, is_quick: bool) -> Iterator[dict[str, Any]]:
    from benchmarks import harness, networks
    from benchmarks.progress import Progress
    from lska_jax.ops.processor import usable_cores

    use_torch = networks.has_torch()
    progress = Progress(len(cases))
    progress.begin(f"{cases[0].size} {cases[0].mode}, compiling")
    lowered = {case: _programs(case, is_quick=is_quick) for case in cases}
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        compiled = {
            case: {
                name: (pool.submit(program.compile), arguments)
                for name, (program, arguments) in programs.items()
            }
            for case, programs in lowered.items()
        }
    for case, programs in compiled.items():
        contenders = {
            name: networks.bind(program.result(), *arguments)
            for name, (program, arguments) in programs.items()
        }
        if use_torch:
            contenders |= _torch_contenders(case, is_quick=is_quick)
        _check_agreement(contenders, case)
        progress.begin(" ".join(map(str, case)))
        timings = harness.measure_alternately(
            contenders,
            seconds_each=1.0,
            max_repetitions=20,
            fewer={"JAX all-lax": 5},
            show=progress.show,
        )
        for name, timing in timings.items():
            memory = _temporary_bytes(programs[name][0].result()) if name in programs else None
            yield {
                **case._asdict(),
                "contender": name,
                "temporary_bytes": memory,
                **dataclasses.asdict(timing),
            }
        progress.end()
    progress.close()


def _programs(case: Case, *, is_quick: bool) -> dict[str, Any]:
    import jax

    from benchmarks import networks
    from benchmarks.operations import ACCELERATOR_ONLY

    images, labels = _batch(case, is_quick=is_quick)
    found = {}
    for name, implementation in FORMS.items():
        if jax.default_backend() == "cpu" and implementation in ACCELERATOR_ONLY:
            continue
        model = _model(case, implementation, is_quick=is_quick)
        if case.mode == "train":
            found[name] = networks.lower_train_step(model, images, labels)
        else:
            found[name] = networks.lower_inference(model, images)
    return found


def _torch_contenders(case: Case, *, is_quick: bool) -> dict[str, Any]:
    from benchmarks import networks

    images, labels = _batch(case, is_quick=is_quick)
    model = _model(case, "xla", is_quick=is_quick)
    if case.mode == "train":
        return networks.torch_train_step(model, images, labels)
    return networks.torch_inference(model, images, forms=["torch"])


def _model(case: Case, implementation: str, *, is_quick: bool) -> Any:
    from benchmarks.model import QUICK_ARCHITECTURE
    from lska_jax import create_model

    return create_model(
        f"van_lska_{case.size}",
        k=_K,
        dtype=case.dtype,
        implementation=implementation,
        **(QUICK_ARCHITECTURE if is_quick else {}),
    )


def _batch(case: Case, *, is_quick: bool) -> Any:
    from benchmarks import networks

    return networks.random_batch(case.batch_size, 32 if is_quick else 224, 1000)


def _temporary_bytes(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes


def _check_agreement(contenders: dict[str, Any], case: Case) -> None:
    """Raise if contenders compute different logits or losses: then they are not comparable."""
    import numpy as np

    expected = None
    for name, call in contenders.items():
        out = call() if case.mode == "inference" else call()[0]
        array = np.asarray(out.detach().float().cpu() if hasattr(out, "detach") else out)
        expected = array if expected is None else expected
        error = np.abs(array - expected).max() / np.abs(expected).max()
        # 8 bits of bfloat16, 11 of tf32, through about 20 layers.
        if not error < {"bfloat16": 0.1, "float32": 1e-2}[case.dtype]:
            raise ValueError(f"{name} differs by {error:.1e} of the largest value in {case}.")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table of images a second and ratios."""
    from benchmarks.results import markdown_table

    cells: dict[Case, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        case = Case(*(row[field] for field in Case._fields))
        cells.setdefault(case, {})[row["contender"]] = row
    lines = []
    for case, found in cells.items():
        seconds = {name: row["seconds"] for name, row in found.items()}
        best = min((s for name, s in seconds.items() if name.startswith("torch")), default=None)
        ours = seconds["JAX"]
        lines.append(
            [
                case.size,
                case.mode,
                case.dtype,
                *(f"{1e3 * seconds[name]:.1f}" if name in seconds else "-" for name in FORMS),
                "not installed" if best is None else f"{1e3 * best:.1f}",
                f"{case.batch_size / ours:,.0f}",
                f"{seconds['JAX all-lax'] / ours:.1f}",
                "not installed" if best is None else f"{best / ours:.2f}",
                _gigabytes(found["JAX"]["temporary_bytes"]),
            ]
        )
    header = ["Size", "Mode", "dtype", *(f"{name}, ms" for name in FORMS), "PyTorch, ms"]
    header += [
        "JAX, images a second",
        "JAX over all-lax",
        "JAX over PyTorch",
        "JAX temporaries, GB",
    ]
    return {NAME: markdown_table(header, lines)}


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
