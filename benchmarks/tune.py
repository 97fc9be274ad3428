"""Measure which formulation each depth-wise convolution should take, and write the table of "auto".

    python -m benchmarks.tune

Times every formulation of every part (forward, gradient of the images, gradient of the kernel) at
the sites of the models and around them, on this machine's backend, and replaces that backend's rows
of ``lska_jax/ops/formulations.json``; other backends' rows stay. On a TPU or GPU run it there.

    python -m benchmarks.tune --compiled docs/performance/tpu_bytes.json

takes the TPU's rows from the bytes that ``python -m benchmarks.tpu_bytes`` counted, without a TPU.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness import measure_alternately
from benchmarks.progress import Progress
from benchmarks.results import describe_conditions
from lska_jax._huge_pages import restart_with_huge_pages
from lska_jax.ops import shift
from lska_jax.ops.depthwise import formulation_module
from lska_jax.ops.formulations import NAMES, TABLE_PATH, Formulations, Site
from lska_jax.ops.kernel_spec import kernel_spec
from lska_jax.ops.pallas import single
from lska_jax.ops.platform import target_platform

BATCH = 8
# A formulation has to be this much faster than the first of the order below to be chosen: within a
# network, shifted sums share their padded map between the forward and the backward pass.
MARGIN = 1.2
ORDER = ("shift", "xla", "toeplitz", "pallas")
_SECONDS_EACH = 0.1

_MAPS = ((56, 32), (56, 64), (28, 64), (14, 160), (14, 320), (7, 256))
_HIDDEN_MAPS = ((56, 256), (28, 512), (14, 640), (14, 1280), (7, 1024))
_LINES = ((3, 1), (5, 1), (7, 3), (17, 3), (53, 1))
_SQUARES = ((5, 1), (7, 3), (11, 1), (17, 3), (23, 1))


def sites() -> list[Site]:
    """Return the convolutions that are timed: those of the four attentions, and of the FFN."""
    lines = [
        Site(size, dilation, (side, side), channels)
        for side, channels in _MAPS
        for taps, dilation in _LINES
        for size in ((1, taps), (taps, 1))
    ]
    squares = [
        Site((taps, taps), dilation, (side, side), channels)
        for side, channels in ((56, 32), (28, 64), (14, 160), (7, 256))
        for taps, dilation in _SQUARES
    ]
    hidden = [Site((3, 3), 1, (side, side), channels) for side, channels in _HIDDEN_MAPS]
    return lines + squares + hidden


def measure(site: Site, show: Callable[[str], None]) -> tuple[Formulations, dict[str, Any]]:
    """Return the formulations to take at a site, and the milliseconds of all.

    Args:
      site: the convolution.
      show: is told the name of what runs next.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    maps = (BATCH, *site.map_size, site.channels)
    images, gradient = (jax.random.normal(key, maps) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (*site.kernel_size, 1, site.channels))
    chosen, milliseconds = [], {}
    for part in Formulations._fields:
        calls = {}
        for name in NAMES:
            if _is_left_out(name, site):
                continue
            module = formulation_module(name)
            if part == "weight_gradient":
                run = jax.jit(lambda x, w, g, m=module: m.weight_gradient(x, w, site.dilation, g))
            elif part == "input_gradient":
                run = jax.jit(lambda x, w, g, m=module: m.convolve(g, w[::-1, ::-1], site.dilation))
            else:
                run = jax.jit(lambda x, w, g, m=module: m.convolve(x, w, site.dilation))
            calls[name] = lambda run=run: run(images, kernel, gradient)
        timings = measure_alternately(
            calls, seconds_each=_SECONDS_EACH, min_repetitions=3, max_repetitions=15, show=show
        )
        seconds = {name: timing.seconds for name, timing in timings.items()}
        chosen.append(fastest(seconds))
        milliseconds[part] = {name: round(1e3 * s, 3) for name, s in seconds.items()}
    return Formulations(*chosen), milliseconds


def fastest(seconds: dict[str, float]) -> str:
    """Return the fastest by more than ``MARGIN``, or else the first of ``ORDER`` that is close."""
    least = min(seconds.values())
    return next(name for name in ORDER if name in seconds and seconds[name] <= MARGIN * least)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--out", type=Path, help="the table to update (default: the package's own)")
    parser.add_argument(
        "--only", type=int, help="measure this many sites only, to see that it runs; needs --out"
    )
    parser.add_argument("--compiled", type=Path, help="take the TPU's rows from this file")
    options = parser.parse_args(arguments)
    if options.only and not options.out:
        parser.error("--only would leave the package's table with few rows: name another by --out")
    out = options.out or TABLE_PATH
    if options.compiled:
        _update(out, "tpu", compiled_part(json.loads(options.compiled.read_text())))
        return
    conditions = describe_conditions()
    print("\n".join(f"{name:<14} {value}" for name, value in conditions.items()))
    print("Expected to take 5 to 8 minutes on two cores.", flush=True)
    rows = []
    todo = sites()[: options.only]
    progress = Progress(len(todo))
    for site in todo:
        progress.begin(f"{site.kernel_size} on {site.map_size}, {site.channels} channels")
        formulations, milliseconds = measure(site, progress.show)
        progress.end()
        rows.append({**site._asdict(), "formulations": formulations, "milliseconds": milliseconds})
    progress.close()
    _update(out, target_platform(), {"source": _source(conditions), "rows": rows})


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
                **Site(size, dilation, (height, width), channels)._asdict(),
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


def _update(path: Path, platform: str, part: dict[str, Any]) -> None:
    table = json.loads(path.read_text()) if path.exists() else {}
    table[platform] = part
    path.write_text(_as_json(table))
    print(f"Wrote {path}.")


def _is_left_out(name: str, site: Site) -> bool:
    height, width = site.kernel_size
    if name == "pallas":
        maps = (BATCH, *site.map_size, site.channels)
        fits = single.fits(maps, (height, width, 1, site.channels), "float32")
        return target_platform() == "cpu" or not fits  # on CPU it would be interpreted
    return name == "shift" and shift.number_of_slices(site) > shift.MOST_SLICES


def _source(conditions: dict[str, Any]) -> str:
    versions = conditions["versions"]
    return (
        f"Measured by python -m benchmarks.tune on {conditions['date'][:10]}: "
        f"{conditions['processor']}, {conditions['cores']} cores, backend "
        f"{conditions['backend']}, jax {versions['jax']}, float32, batch {BATCH}, "
        f"load {conditions['load_at_start'][0]} at its start; medians in ms."
    )


def _as_json(table: dict[str, Any]) -> str:
    """Write one row a line, so that a difference can be read."""
    parts = []
    for platform, part in table.items():
        rows = ",\n".join(f"   {json.dumps(row)}" for row in part["rows"])
        source = json.dumps(part["source"])
        parts.append(f' "{platform}": {{\n  "source": {source},\n  "rows": [\n{rows}\n  ]\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
