"""Compare the families with one another and with timm: ``python -m benchmarks.families``.

Networks of about 5, 14 and 28 million parameters of every family, 224 px, float32: inference and a
train step (forward, mean cross entropy, gradients of all parameters) at batch 8 and 32. All
contenders of one network run alternately on the same images and weights, with all cores on both
sides, and their outputs are compared first.

- JAX: plain ``jax.jit``; ``folded`` has folded for inference what its family can fold.
- timm: eager in both memory formats, and ``torch.compile`` in the one that was faster. VAN, which
  timm does not have, is the plain PyTorch of ``benchmarks.torch_van``; UniRepLKNet stands alone.
- Memory of the train step at batch 32: the largest resident set of a process of its own that does
  nothing else, less what it has once its libraries, weights and images are there.

Every network's rows are written as soon as they are measured; ``--models`` and ``--batch_sizes``
measure some again and keep the rest.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lska_jax.running import door

NAME = "families"
OURS, FOLDED = "JAX", "JAX folded"
EAGER, COMPILED = ("torch contiguous", "torch channels_last"), "torch compiled"
MODES, BATCH_SIZES = ("inference", "train"), (8, 32)
# Memory is what limits training at large batches, and a process for each figure takes long.
MEMORY_OF = ("train", 32)

# By size class, in millions of parameters.
MODELS = {
    5: (
        *("van_lska_tiny", "van_lka_tiny", "deit_tiny_patch16_224", "pvt_v2_b0"),
        *("inception_next_atto", "unireplknet_a"),
    ),
    14: ("van_lska_small", "van_lka_small", "pvt_v2_b1", "unireplknet_p"),
    28: (
        *("van_lska_base", "van_lka_base", "convnext_tiny", "deit_small_patch16_224"),
        *("swin_tiny_patch4_window7_224", "pvt_v2_b2", "inception_next_tiny", "unireplknet_t"),
    ),
}
_EXPECTED = "two hours on two cores, or a part of it with --models"
# Of a slow contender in a busy hour; the median of fewer says nothing.
_REPETITIONS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON and PNG, print the tables."""
    from benchmarks import family_tables, results

    options = _parser().parse_args(argv)
    if options.memory_of:
        print(json.dumps(_peak_memory(*options.memory_of)))
        return
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    known = None if options.quick else results.read_result(folder, NAME)
    rows = _kept(known, conditions, options) if known else []
    result: dict[str, Any] = {"rows": rows}
    for of_model in _measure(options):
        rows = [*rows, *of_model]
        result = results.write_result(
            folder, NAME, conditions=conditions, rows=rows, is_quick=options.quick
        )
    for table in family_tables.tables(result).values():
        print(f"\n{table}")
    family_tables.draw(result, folder)


def _parser() -> argparse.ArgumentParser:
    from benchmarks import results

    every = [name for of_size in MODELS.values() for name in of_size]
    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--models", nargs="+", choices=every, default=every, metavar="MODEL")
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, choices=BATCH_SIZES, default=BATCH_SIZES
    )
    parser.add_argument(
        "--eager_only", action="store_true", help="leave torch.compile out, which takes longest"
    )
    parser.add_argument("--memory_of", nargs=2, help=argparse.SUPPRESS)
    return parser


def _kept(
    known: dict[str, Any], conditions: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the rows of an earlier run that this one does not measure again.

    Raises:
      SystemExit: there are such rows, and they are of another processor.
    """
    kept = [
        row
        for row in known["rows"]
        if row["model"] not in options.models or row["batch_size"] not in options.batch_sizes
    ]
    theirs, ours = known["conditions"]["processor"], conditions["processor"]
    if kept and theirs != ours:
        raise SystemExit(
            f"The rows to be kept are of {theirs}, this is {ours}, and one table is of one "
            "processor: measure all models, or write elsewhere with --out."
        )
    return kept


def _measure(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    from benchmarks import harness, results
    from benchmarks.progress import Progress

    batch_sizes = (1,) if options.quick else options.batch_sizes
    models = options.models[:2] if options.quick else options.models
    use_compile = not (options.quick or options.eager_only)
    progress = Progress(len(models) * len(MODES) * len(batch_sizes))
    for model in models:
        rows = []
        facts = {"model": model, "commit": results.commit(), **_facts(model)}
        for mode in MODES:
            for batch_size in batch_sizes:
                progress.begin(f"{model} {mode}, batch {batch_size}, compiling")
                contenders = _contenders(model, mode, batch_size, use_compile=use_compile)
                progress.begin(f"{model} {mode}, batch {batch_size}")
                timings = harness.measure_alternately(
                    contenders,
                    min_repetitions=_REPETITIONS,
                    max_repetitions=2 * _REPETITIONS,
                    show=progress.show,
                )
                memory = {}
                if (mode, batch_size) == MEMORY_OF:
                    eager = (timings[name].seconds for name in EAGER if name in timings)
                    fastest = min(eager, default=None)
                    for name, timing in timings.items():
                        if name == OURS or timing.seconds == fastest:
                            progress.show(f"memory of {name}")
                            memory[name] = results.run_child(
                                NAME, "--memory_of", model, name, is_quick=False
                            )
                rows += [
                    {
                        **facts,
                        "mode": mode,
                        "batch_size": batch_size,
                        "contender": name,
                        **dataclasses.asdict(timing),
                        "memory_bytes": memory.get(name),
                    }
                    for name, timing in timings.items()
                ]
                progress.end()
        yield rows
    progress.close()


def _facts(model: str) -> dict[str, Any]:
    from lska_jax.analysis.complexity import network_cost
    from lska_jax.models.build import config_of
    from lska_jax.models.table import model_entry, section_of

    cost = network_cost(config_of(section_of(model)))
    return {
        "family": model_entry(model).family,
        "parameters": cost.parameters,
        "macs": cost.macs,
    }


def _contenders(model: str, mode: str, batch_size: int, *, use_compile: bool) -> dict[str, Any]:
    """Return the calls of one network, checked to compute the same."""
    from benchmarks import harness, networks, torch_peers

    network, images, labels = _inputs(model, batch_size)
    found: dict[str, Any] = {}
    for name in (OURS, FOLDED) if mode == "inference" else (OURS,):
        found[name] = _ours(name, mode, network, images, labels)
    if networks.has_torch() and torch_peers.is_known(model):
        eager = {
            name: torch_peers.call(model, network, name, mode, images, labels) for name in EAGER
        }
        # Once for the memory, once for the clock.
        seconds = {
            name: min(harness.seconds_of(call) for _ in "12") for name, call in eager.items()
        }
        fastest = min(seconds, key=seconds.__getitem__)
        found |= eager
        if use_compile:
            found[COMPILED] = torch_peers.call(
                model, network, fastest, mode, images, labels, is_compiled=True
            )
    _check_agreement(found, mode)
    return found


def _inputs(model: str, batch_size: int) -> Any:
    from benchmarks import networks
    from lska_jax import create_model

    return create_model(model), *networks.random_batch(batch_size, 224, 1000)


def _ours(name: str, mode: str, network: Any, images: Any, labels: Any) -> Any:
    from benchmarks import networks
    from lska_jax.models.fold import fold_for_inference

    if mode == "train":
        return networks.jax_train_step(network, images, labels)
    return networks.jax_inference(
        fold_for_inference(network) if name == FOLDED else network, images
    )


def _check_agreement(contenders: dict[str, Any], mode: str) -> None:
    """Raise if contenders compute different logits or losses: then they are not comparable."""
    import numpy as np

    outputs = {}
    for name, call in contenders.items():
        out = call() if mode == "inference" else call()[0]
        outputs[name] = np.asarray(out.detach() if hasattr(out, "detach") else out)
    expected = outputs[OURS]
    for name, array in outputs.items():
        error = np.abs(array - expected).max() / np.abs(expected).max()
        # Float32 rounding through up to 24 blocks.
        if not error < 1e-4:
            raise ValueError(f"{name} differs by {error:.1e} of the largest value.")


def _peak_memory(model: str, name: str) -> int:
    """Return the bytes that a train step needs beside weights and images, in this process."""
    import resource

    from benchmarks import harness, torch_peers
    from lska_jax.running.inline_dispatch import use_inline_dispatch

    use_inline_dispatch()
    mode, batch_size = MEMORY_OF
    network, images, labels = _inputs(model, batch_size)
    if name == OURS:
        call = _ours(name, mode, network, images, labels)
    else:
        call = torch_peers.call(model, network, name, mode, images, labels)
    before = _resident_bytes()
    for _ in range(3):
        harness.seconds_of(call)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(0, peak - before)


def _resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
