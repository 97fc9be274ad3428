"""Measure which formulation each depth-wise convolution should take, and write the table of "auto".

    python -m benchmarks.tune

Times every formulation of every part (forward, gradient of the images, gradient of the kernel) at
the sites of the models and around them, on this machine's backend, and replaces that backend's rows
of ``lska_jax/ops/formulations.json``; other backends' rows stay, and of CPUs those of the other
width of vectors. On a TPU or GPU run it there: it times base's sites at 64 images, in bfloat16 and
float32.

What is measured is kept at once in a file beside the table. A run that was ended, or that
``--seconds`` ended, goes on from there.

    python -m benchmarks.tune --compiled docs/performance/tpu_bytes.json

takes the TPU's rows from the bytes that ``python -m benchmarks.tpu_bytes`` counted, without a TPU.
"""

import argparse
import concurrent.futures
import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import measure_alternately
from benchmarks.progress import Progress
from benchmarks.results import describe_conditions
from lska_jax.ops import shift
from lska_jax.ops.depthwise import formulation_module
from lska_jax.ops.formulations import NAMES, TABLE_PATH, Formulations, Site, part_of, site_of
from lska_jax.ops.kernel_spec import kernel_spec
from lska_jax.ops.pallas import single
from lska_jax.ops.platform import target_platform
from lska_jax.ops.processor import usable_cores
from lska_jax.running import door

# Images that are timed: on CPU as a laptop has them at once, else as a chip is given in training.
BATCH, ACCELERATOR_BATCH = 8, 64
# On CPU a formulation has to be this much faster than the first of the order below to be chosen:
# within a network, shifted sums share their padded map between the forward and the backward pass.
MARGIN = 1.2
ORDER = ("shift", "xla", "toeplitz", "pallas")
_SECONDS_EACH = 0.1
# To start a program takes an accelerator longer than to run a small convolution: one program runs
# as many, one after the other.
_IN_A_PROGRAM = 20
# Sites, of nine programs each.
_COMPILED_AT_ONCE = 6

_MAPS = ((56, 32), (56, 64), (28, 64), (14, 160), (14, 320), (7, 256))
_HIDDEN_MAPS = ((56, 256), (28, 512), (14, 640), (14, 1280), (7, 1024))
_LINES = ((3, 1), (5, 1), (7, 3), (17, 3), (53, 1))
_SQUARES = ((5, 1), (7, 3), (11, 1), (17, 3), (23, 1))
# Of the other families at 224 pixels, as their tables of sizes have them: ConvNeXt-T's 7 x 7;
# UniRepLKNet-T's 13 x 13, which its first stage has not; the bands of InceptionNeXt-T and its
# 3 x 3, each on an eighth of the channels; the 3 x 3 of PVTv2-B2's MLPs, which VAN-base's FFNs
# have too.
_CONVNEXT_MAPS = ((56, 96), (28, 192), (14, 384), (7, 768))
_UNIREPLKNET_MAPS = ((28, 160), (14, 320), (7, 640))
_INCEPTION_NEXT_MAPS = ((56, 12), (28, 24), (14, 48), (7, 96))
_PVT_V2_MAPS = ((56, 512), (28, 1024), (14, 1280), (7, 2048))
# Accelerators are tuned for base, which they train.
_ACCELERATOR_MAPS = ((56, 64, 512), (28, 128, 1024), (14, 320, 1280), (7, 512, 2048))
_ACCELERATOR_LINES = ((5, 1), (7, 3), (17, 3), (53, 1))
_ACCELERATOR_SQUARES = ((5, 1), (7, 3), (23, 1))

_Call = Callable[[], Any]


def sites() -> list[Site]:
    """Return the convolutions that are timed: those of the four attentions, and of the FFN."""
    if target_platform() != "cpu":
        return [
            site
            for dtype in ("bfloat16", "float32")
            for side, channels, hidden in _ACCELERATOR_MAPS
            for site in (
                *_lines(side, channels, _ACCELERATOR_LINES, dtype),
                *_squares(side, channels, _ACCELERATOR_SQUARES, dtype),
                Site((3, 3), 1, (side, side), hidden, dtype),
            )
        ]
    lines = [site for side, channels in _MAPS for site in _lines(side, channels, _LINES)]
    squares = [
        site
        for side, channels in ((56, 32), (28, 64), (14, 160), (7, 256))
        for site in _squares(side, channels, _SQUARES)
    ]
    hidden = [Site((3, 3), 1, (side, side), channels) for side, channels in _HIDDEN_MAPS]
    return list(dict.fromkeys([*lines, *squares, *hidden, *_sites_of_other_families()]))


def _sites_of_other_families() -> Iterator[Site]:
    """Yield the convolutions of the families beside VAN, in float32."""
    for taps, maps in ((7, _CONVNEXT_MAPS), (13, _UNIREPLKNET_MAPS)):
        for side, channels in maps:
            yield Site((taps, taps), 1, (side, side), channels)
    for side, channels in _INCEPTION_NEXT_MAPS:
        for size in ((1, 11), (11, 1), (3, 3)):
            yield Site(size, 1, (side, side), channels)
    for side, channels in _PVT_V2_MAPS:
        yield Site((3, 3), 1, (side, side), channels)


def _lines(side: int, channels: int, kernels: Any, dtype: str = "float32") -> list[Site]:
    return [
        Site(size, dilation, (side, side), channels, dtype)
        for taps, dilation in kernels
        for size in ((1, taps), (taps, 1))
    ]


def _squares(side: int, channels: int, kernels: Any, dtype: str = "float32") -> list[Site]:
    return [
        Site((taps, taps), dilation, (side, side), channels, dtype) for taps, dilation in kernels
    ]


def measure(
    site: Site, calls: Mapping[str, Mapping[str, _Call]], show: Callable[[str], None]
) -> Any:
    """Return the formulations to take at a site, and the milliseconds of all.

    Args:
      site: the convolution.
      calls: from ``compiled``.
      show: is told the name of what runs next.
    """
    images, kernel, gradient = _arrays(site)
    chosen, milliseconds = {}, {}
    for part, contenders in calls.items():
        timings = measure_alternately(
            {
                name: functools.partial(run, images, kernel, gradient)
                for name, run in contenders.items()
            },
            seconds_each=_SECONDS_EACH,
            min_repetitions=3,
            max_repetitions=15,
            # A hundred times as slow where it is slow on CPU.
            fewer={"xla": 3} if target_platform() == "cpu" else None,
            show=show,
        )
        seconds = {name: timing.seconds / _repetitions() for name, timing in timings.items()}
        chosen[part] = fastest(seconds)
        milliseconds[part] = {name: round(1e3 * s, 4) for name, s in seconds.items()}
    # The same operation as the forward pass, with the flipped kernel.
    chosen.setdefault("input_gradient", chosen["forward"])
    return Formulations(**chosen), milliseconds


def compiled(todo: Sequence[Site]) -> list[dict[str, dict[str, Any]]]:
    """Return for each site {part: {formulation: (images, kernel, output gradient) -> the result}}.

    As many programs are compiled at once as there are cores. One that cannot be compiled is left
    out, and said.
    """
    lowered = {}
    for number, site in enumerate(todo):
        arrays = jax.eval_shape(functools.partial(_arrays, site))
        for part, name in itertools.product(_parts(), NAMES):
            if not _is_left_out(name, site, part):
                run = jax.jit(_repeated(_operation(name, part, site.dilation)))
                lowered[number, part, name] = run.lower(*arrays)
    programs: list[dict[str, dict[str, Any]]] = [{part: {} for part in _parts()} for _ in todo]
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        futures = {key: pool.submit(program.compile) for key, program in lowered.items()}
    for (number, part, name), future in futures.items():
        if future.exception():
            print(f"{todo[number]}: {name} is left out: {future.exception()}", flush=True)
        else:
            programs[number][part][name] = future.result()
    return programs


def _parts() -> tuple[str, ...]:
    return Formulations._fields if target_platform() == "cpu" else ("forward", "weight_gradient")


def _arrays(site: Site) -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    maps = (_batch(), *site.map_size, site.channels)
    images, gradient = (jax.random.normal(key, maps, site.dtype) for key in keys[:2])
    return images, jax.random.normal(keys[2], (*site.kernel_size, 1, site.channels)), gradient


def _operation(name: str, part: str, dilation: int) -> Callable[..., jax.Array]:
    module = formulation_module(name)
    if part == "weight_gradient":
        return lambda x, w, g: module.weight_gradient(x, w, dilation, g)
    if part == "input_gradient":
        return lambda x, w, g: module.convolve(g, w[::-1, ::-1].astype(g.dtype), dilation)
    return lambda x, w, g: module.convolve(x, w.astype(x.dtype), dilation)


def _repeated(run: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return a function that runs another so often that starting it does not count."""
    if _repetitions() == 1:
        return run

    def repeated(*arrays: jax.Array) -> jax.Array:
        def step(_: Any, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            # A barrier, or XLA would run it once, before the loop.
            again, _ = jax.lax.optimization_barrier(carry)
            return again, run(*again)

        out = jax.eval_shape(run, *arrays)
        zeros = jnp.zeros(out.shape, out.dtype)
        return jax.lax.fori_loop(0, _IN_A_PROGRAM, step, (arrays, zeros))[1]

    return repeated


def _repetitions() -> int:
    return 1 if target_platform() == "cpu" else _IN_A_PROGRAM


def _batch() -> int:
    return BATCH if target_platform() == "cpu" else ACCELERATOR_BATCH


def fastest(seconds: dict[str, float]) -> str:
    """Return the fastest; on CPU by ``MARGIN``, or else the first of ``ORDER`` that is close."""
    margin = MARGIN if target_platform() == "cpu" else 1.0
    least = min(seconds.values())
    return next(name for name in ORDER if name in seconds and seconds[name] <= margin * least)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--out", type=Path, help="the table to update (default: the package's own)")
    parser.add_argument(
        "--only", type=int, help="measure this many sites only, to see that it runs; needs --out"
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin nothing more after these seconds"
    )
    parser.add_argument("--compiled", type=Path, help="take the TPU's rows from this file")
    options = parser.parse_args(arguments)
    if options.only and not options.out:
        parser.error("--only would leave the package's table with few rows: name another by --out")
    out = options.out or TABLE_PATH
    if options.compiled:
        _update(out, "tpu", compiled_part(json.loads(options.compiled.read_text())))
        print(f"Wrote {out}.")
        return
    conditions = describe_conditions() | {"dtype": ", ".join({s.dtype: None for s in sites()})}
    print("\n".join(f"{name:<14} {value}" for name, value in conditions.items()))
    print("Expected to take 8 to 12 minutes on two cores, about as long on a GPU.", flush=True)
    todo = sites()[: options.only]
    kept = out.with_suffix(".partial.json")
    name = part_of(target_platform())
    part = _begun(kept, name) or {"part": name, "source": _source(conditions), "rows": []}
    if not _measure_missing(todo, part, kept, ends=time.monotonic() + options.seconds):
        print(f"Not all is measured; the same command goes on, from {kept}.")
        return
    _update(out, name, {"source": part["source"], "rows": part["rows"]})
    kept.unlink()
    print(f"Wrote {out}.")


def _begun(kept: Path, name: str) -> dict[str, Any] | None:
    """Return what an earlier run measured of this part of the table."""
    begun = json.loads(kept.read_text()) if kept.exists() else {}
    return begun if begun.get("part") == name else None


def _measure_missing(
    todo: Sequence[Site], part: dict[str, Any], kept: Path, *, ends: float
) -> bool:
    """Measure the sites that a part of the table has not; tell whether all are done.

    Args:
      todo: sites.
      part: of the table; its rows grow.
      kept: file that gets the part after every row. The table itself stays whole until the end.
      ends: when no further site is begun, by ``time.monotonic``.
    """
    known = {site_of(row) for row in part["rows"]}
    missing = [site for site in todo if site not in known]
    progress = Progress(len(missing))
    while missing and time.monotonic() < ends:
        chunk, missing = missing[:_COMPILED_AT_ONCE], missing[_COMPILED_AT_ONCE:]
        progress.begin("compiling")
        for site, calls in zip(chunk, compiled(chunk), strict=True):
            if not all(calls.values()):
                print(f"{site} is left out: nothing could be compiled.", flush=True)
                continue
            progress.begin(f"{site.kernel_size} on {site.map_size}, {site.channels} channels")
            formulations, milliseconds = measure(site, calls, progress.show)
            progress.end()
            part["rows"].append(
                {**site._asdict(), "formulations": formulations, "milliseconds": milliseconds}
            )
            kept.write_text(json.dumps(part))
    progress.close()
    return not missing


def compiled_part(counted: dict[str, Any]) -> dict[str, Any]:
    """Return the TPU's part of the table: at each site the formulation that moves the least.

    Args:
      counted: what ``benchmarks.tpu_bytes`` wrote.
    """
    conditions = counted["conditions"]
    spec = kernel_spec(conditions["k"])
    local, dilated, d = spec.local_size, spec.dilated_size, spec.dilation
    steps = [((1, local), 1), ((local, 1), 1), ((1, dilated), d), ((dilated, 1), d)]
    rows = []
    for stage in itertools.chain.from_iterable(counted["cascade"].values()):
        _, height, width, channels = stage["shape"]
        forward, both = (_least_bytes(stage, mode) for mode in ("forward", "forward_backward"))
        rows += [
            {
                **Site(size, dilation, (height, width), channels, conditions["dtype"])._asdict(),
                "formulations": Formulations(forward, both, both),
            }
            for size, dilation in steps
        ]
    source = (
        f"Compiled only, never run: least bytes of the cascade, by python -m benchmarks.tpu_bytes "
        f"for {conditions['topology']}, batch {conditions['batch_per_chip']} a chip, "
        f"{conditions['dtype']}, jax {conditions['jax']}, libtpu {conditions['libtpu']}."
    )
    return {"source": source, "rows": rows}


def _least_bytes(stage: dict[str, Any], mode: str) -> str:
    found = {name: stage[f"{name} {mode}"] for name in NAMES if f"{name} {mode}" in stage}
    return min(found, key=lambda name: found[name]["bytes_accessed_mb"])


def _update(path: Path, name: str, part: dict[str, Any]) -> None:
    table = json.loads(path.read_text()) if path.exists() else {}
    table[name] = part
    written = path.with_suffix(".new")
    written.write_text(_as_json(table))
    os.replace(written, path)


def _is_left_out(name: str, site: Site, part: str) -> bool:
    platform = target_platform()
    if name == "pallas":
        # Interpreted on CPU. On GPU it is for those who ask for it by name: JAX has announced that
        # it will remove the backend.
        maps = (_batch(), *site.map_size, site.channels)
        kernel = (*site.kernel_size, 1, site.channels)
        return platform != "tpu" or not single.fits(maps, kernel, site.dtype)
    if name == "xla" and part == "weight_gradient" and platform == "gpu":
        # Took hundreds of times as long as banded matrices, but for the FFN's, which cuDNN knows.
        return site.kernel_size != (3, 3)
    return name == "shift" and shift.has_too_many_slices(site, part)


def _source(conditions: dict[str, Any]) -> str:
    versions = conditions["versions"]
    return (
        f"Measured by python -m benchmarks.tune on {conditions['date'][:10]}: "
        f"{conditions['processor']}, {conditions['cores']} cores, backend "
        f"{conditions['backend']}, jax {versions['jax']}, batch {_batch()}, "
        f"load {conditions['load_at_start'][0]} at its start; medians in ms."
    )


def _as_json(table: dict[str, Any]) -> str:
    """Write one row a line, so that a difference can be read."""
    parts = []
    for name, part in table.items():
        rows = ",\n".join(f"   {json.dumps(row)}" for row in part["rows"])
        source = json.dumps(part["source"])
        parts.append(f' "{name}": {{\n  "source": {source},\n  "rows": [\n{rows}\n  ]\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    door.settle()
    main()
