"""Time whole networks on the accelerator that is here: ``python -m benchmarks.accelerator``.

VAN-LSKA tiny and base at k = 23 and ConvNeXt-tiny, 224 px, bfloat16 and float32, inference at 1, 64
and 256 images and a train step (forward, mean cross entropy, gradients of all parameters) at 64,
128 and 256, one GPU or TPU. Contenders of one case run alternately, and their outputs are compared
first.

- JAX: ``auto``, the formulations of ``lska_jax/ops/formulations.json``; ``all-lax``, every
  depth-wise convolution as lax's grouped one, at 64 images only.
- PyTorch on the same GPU, in processes of ``benchmarks.accelerator_torch``: eager in both memory
  formats, and ``torch.compile`` in channels_last; ``torch.autocast`` for bfloat16, float32 as tf32.

The cases are put in rounds, the most wanted first. A round's programs are compiled at once, JAX's
in threads and PyTorch's beside them; then nothing but one contender runs. No round begins that
would take the run beyond ``--seconds``, and what is not compiled by then is left out and said. Each
case is written as soon as it is measured, and the same command goes on with what is missing;
compiled programs are kept for it, with ``--cache DIR`` in a folder that can be carried along.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NAME = "accelerator"
NETWORKS = ("van_lska_tiny", "van_lska_base", "convnext_tiny")
OURS, ALL_LAX = "JAX", "JAX all-lax"
FORMS = {OURS: "auto", ALL_LAX: "xla"}
EAGER, COMPILED = ("torch contiguous", "torch channels_last"), "torch compiled"

_EXPECTED = "at most --seconds, most of it to compile"
_SECONDS = 480.0
_K = 23
_COMPARED_SIZE = 64  # images at which all-lax runs
# Of a round that are left for it when its compiling is cut off.
_SECONDS_TO_MEASURE = 60.0
# Dense TFLOP/s of products in bfloat16 and in tf32, by what JAX calls the card, from NVIDIA's
# data sheets of H200 and H100 (half of what they give "with sparsity") and of A100.
_PEAKS = {
    "H200": {"bfloat16": 989.5, "float32": 494.7},
    "H100": {"bfloat16": 989.5, "float32": 494.7},
    "A100": {"bfloat16": 312.0, "float32": 156.0},
}


class Case(NamedTuple):
    """One network in one mode and dtype."""

    network: str
    mode: str
    dtype: str
    batch_size: int


def rounds(networks: Sequence[str] = NETWORKS, *, is_quick: bool = False) -> list[list[Case]]:
    """Return the cases in rounds, the most wanted first."""
    modes = {"inference": (1, 64, 256), "train": (64, 128, 256)}
    if is_quick:
        modes, networks = {"inference": (2,), "train": (2,)}, networks[:1]
    first = [
        [
            Case(network, mode, dtype, batch_size)
            for network in networks
            for mode, batch_sizes in modes.items()
            for batch_size in batch_sizes
            if (batch_size in (2, _COMPARED_SIZE)) == is_first and batch_size != 128
        ]
        for is_first in (True, False)
        for dtype in ("bfloat16", "float32")
    ]
    last = [Case(network, "train", dtype, 128) for dtype in ("bfloat16", "float32")
            for network in networks if not is_quick]  # fmt: skip
    return [cases for cases in (*first, last) if cases]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the JSON file after each case, and print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="(default: all three)")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for all (default: 480)")
    parser.add_argument("--cache", type=Path, help="folder of compiled programs")
    options = parser.parse_args(argv)
    ends = time.monotonic() + options.seconds
    # PyTorch shares the card.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    if conditions["backend"].startswith("cpu") and not options.quick:
        parser.error("there is no GPU or TPU here; on CPU run python -m benchmarks.model")
    conditions["dtype"] = "bfloat16, float32"
    keep_programs(options.cache)
    folder = results.output_folder(options)
    known = None if options.quick else results.read_result(folder, NAME)
    result = known or {"conditions": conditions, "rows": []}
    longest = 0.0
    for wanted in rounds(options.networks, is_quick=options.quick):
        done = {case_of(row) for row in result["rows"]}
        cases = [case for case in wanted if case not in done]
        begun = time.monotonic()
        if not cases or begun + longest > ends:
            continue
        for rows in _measure(cases, ends=ends, is_quick=options.quick):
            result = results.write_result(
                folder,
                NAME,
                conditions=result["conditions"],
                rows=[*result["rows"], *rows],
                is_quick=options.quick,
            )
        longest = max(longest, time.monotonic() - begun)
    for table in tables(result).values():
        print(f"\n{table}")
    missing = sum(map(len, rounds(options.networks, is_quick=options.quick)))
    missing -= len({case_of(row) for row in result["rows"]})
    if missing:
        print(f"\n{missing} cases are missing; the same command goes on with them.", flush=True)


def keep_programs(folder: Path | None) -> None:
    """Keep JAX's compiled programs, and PyTorch's where a folder is named."""
    import jax

    from lska_jax.running.compilation_cache import use_compilation_cache

    if folder:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((folder / "torch").absolute())
    use_compilation_cache(str(folder / "jax") if folder else None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _measure(cases: list[Case], *, ends: float, is_quick: bool) -> Any:
    """Yield the rows of each case of a round."""
    from benchmarks import networks
    from benchmarks.accelerator_torch import start_peers
    from benchmarks.progress import Progress
    from lska_jax.ops.processor import usable_cores

    progress = Progress(len(cases))
    progress.begin("compiling")
    compiled_by = ends - _SECONDS_TO_MEASURE
    peers = start_peers(cases, is_quick=is_quick) if networks.has_torch() else {}
    pool = concurrent.futures.ThreadPoolExecutor(usable_cores())
    try:
        programs = {
            (case, name): (pool.submit(lowered.compile), arguments)
            for case in cases
            for name, (lowered, arguments) in _programs(case, is_quick=is_quick).items()
        }
        ready = {key: _compiled(key, future, compiled_by) for key, (future, _) in programs.items()}
        for peer in peers.values():
            peer.wait(compiled_by)
        for case in cases:
            ours = {
                name: networks.bind(program, *programs[case, name][1])
                for (of, name), program in ready.items()
                if of == case and program is not None
            }
            if OURS not in ours or time.monotonic() > ends:
                continue
            peer = peers.get((case.network, case.dtype))
            theirs = peer.contenders(case) if peer else {}
            progress.begin(" ".join(map(str, case)))
            yield _rows(case, ours, theirs, ready, show=progress.show)
            if theirs:
                peer.release()
            progress.end()
    finally:
        for peer in peers.values():
            peer.end()
        pool.shutdown(wait=False, cancel_futures=True)
        progress.close()


def _compiled(key: tuple[Case, str], future: Any, ends: float) -> Any:
    try:
        return future.result(timeout=max(0.0, ends - time.monotonic()))
    except Exception as error:
        print(f"{key} is left out: {type(error).__name__} {error}", flush=True)
        return None


def _rows(
    case: Case,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    programs: Mapping[Any, Any],
    *,
    show: Any,
) -> list[dict[str, Any]]:
    from benchmarks import harness

    _check_agreement(
        case,
        {
            **{n: _first(call()) for n, call in ours.items()},
            **{n: c.output for n, c in theirs.items()},
        },
    )
    timed = {name: (lambda call=call: harness.seconds_of(call)) for name, call in ours.items()}
    timings = harness.measure_alternately(
        {**timed, **{name: contender.seconds for name, contender in theirs.items()}},
        seconds_each=1.0,
        max_repetitions=20,
        fewer={ALL_LAX: 5},
        time_once=lambda run: run(),
        show=show,
    )
    return [
        {
            **case._asdict(),
            "contender": name,
            "memory_bytes": theirs[name].memory_bytes()
            if name in theirs
            else _memory_bytes(programs[case, name]),
            "flops": flops(case),
            **dataclasses.asdict(timing),
        }
        for name, timing in timings.items()
    ]


def _programs(case: Case, *, is_quick: bool) -> dict[str, Any]:
    from benchmarks import networks

    images, labels = batch(case, is_quick=is_quick)
    found = {}
    for name, implementation in FORMS.items():
        if name == ALL_LAX and case.batch_size not in (2, _COMPARED_SIZE):
            continue
        model = build(case, implementation, is_quick=is_quick)
        if case.mode == "train":
            found[name] = networks.lower_train_step(model, images, labels)
        else:
            found[name] = networks.lower_inference(model, images)
    return found


def build(case: Case, implementation: str, *, is_quick: bool) -> Any:
    """Return a case's network, the same weights in every process."""
    return _network(case.network, case.dtype, implementation, is_quick)


@functools.cache
def _network(network: str, dtype: str, implementation: str, is_quick: bool) -> Any:
    from lska_jax import create_model

    own = architecture(network, is_quick=is_quick)
    return create_model(network, dtype=dtype, implementation=implementation, **own)


def architecture(network: str, *, is_quick: bool) -> dict[str, Any]:
    """Return what a network is given beside its name."""
    from benchmarks.model import QUICK_ARCHITECTURE

    is_van = network.startswith("van_")
    own: dict[str, Any] = {"k": _K} if is_van else {}
    if is_quick:
        own |= QUICK_ARCHITECTURE if is_van else {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
    return own


def batch(case: Case, *, is_quick: bool) -> Any:
    """Return a case's images and labels."""
    from benchmarks import networks

    return networks.random_batch(case.batch_size, 32 if is_quick else 224, 1000)


def flops(case: Case) -> float:
    """Return the operations of a case: two for every product, three passes in training."""
    return 2.0 * _macs(case.network) * case.batch_size * (3 if case.mode == "train" else 1)


@functools.cache
def _macs(network: str) -> int:
    from lska_jax.analysis.complexity import network_cost
    from lska_jax.models.table import families, model_entry

    entry = model_entry(network)
    own = architecture(network, is_quick=False)
    return network_cost(families()[entry.family].config(**{**entry.fields, **own})).macs


def case_of(row: Mapping[str, Any]) -> Case:
    """Return the case of a row."""
    return Case(*(row[field] for field in Case._fields))


def _memory_bytes(compiled: Any) -> int | None:
    """Return what a program needs at once: arguments, results and temporaries."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    used = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return int(used - found.alias_size_in_bytes)


def _first(out: Any) -> Any:
    import numpy as np

    return np.asarray(out[0] if isinstance(out, tuple) else out, np.float32)


def _check_agreement(case: Case, outputs: Mapping[str, Any]) -> None:
    """Raise if contenders compute different logits or losses: then they are not comparable."""
    import numpy as np

    expected = outputs[OURS]
    for name, output in outputs.items():
        error = np.abs(output - expected).max() / np.abs(expected).max()
        # 8 bits of bfloat16, 11 of tf32, through about 20 layers.
        if not error < {"bfloat16": 0.1, "float32": 1e-2}[case.dtype]:
            raise ValueError(f"{name} differs by {error:.1e} of the largest value in {case}.")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table of milliseconds, images a second, memory and share of the peak."""
    from benchmarks.results import markdown_table

    device = result["conditions"]["backend"]
    peaks = next((found for name, found in _PEAKS.items() if name in device), None)
    lines = []
    for case, group in itertools.groupby(result["rows"], key=case_of):
        found = {row["contender"]: row for row in group}
        ms = {name: 1e3 * row["seconds"] for name, row in found.items()}
        eager = min((name for name in EAGER if name in ms), key=lambda name: ms[name], default="")
        rivals = [ms[name] for name in (eager, COMPILED) if name in ms]
        rate = found[OURS]["flops"] / found[OURS]["seconds"] / 1e12
        line = [case.network, case.mode, case.dtype, str(case.batch_size)]
        line += [f"{ms[name]:.1f}" if name in ms else "-" for name in (*FORMS, eager, COMPILED)]
        line.append(f"{1e3 * case.batch_size / ms[OURS]:,.0f}")
        line.append(f"{ms[ALL_LAX] / ms[OURS]:.1f}" if ALL_LAX in ms else "-")
        line.append(f"{min(rivals) / ms[OURS]:.2f}" if rivals else "-")
        line += [_gigabytes(found[name]) if name in found else "-" for name in (OURS, eager)]
        line.append(f"{100 * rate / peaks[case.dtype]:.1f} %" if peaks else "unknown")
        lines.append(line)
    header = ["Network", "Mode", "dtype", "Images", *(f"{name}, ms" for name in FORMS)]
    header += ["PyTorch eager, ms", "torch.compile, ms", "JAX, images/s", "JAX over all-lax"]
    header += ["JAX over PyTorch's best", "JAX, GB", "eager, GB", "JAX, share of the peak"]
    return {NAME: markdown_table(header, lines)}


def _gigabytes(row: Mapping[str, Any]) -> str:
    count = row["memory_bytes"]
    return "unknown" if count is None else f"{count / 1e9:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # programs that are still being compiled would hold the process
