"""From a command line to its first answer on CPU: ``python -m benchmarks.first_answer``.

Every figure is of processes of their own, from their start to their end, which take turns; the
first start of each has an empty cache folder (``XDG_CACHE_HOME``), and the second has what the
first kept.

- ``lska-jax predict`` of VAN-LSKA-tiny's model folder and one photo.
- timm's convnext_atto on the same photo, as its documentation has it: imports, network, weights
  from a safetensors file, preprocessing, five best classes. It is left out where timm is not
  installed. It compiles nothing, so that each of its starts is alike.
- ``create_model("van_lska_tiny")`` and one call on a photo's array, called as it is (eager) and
  through ``nnx.jit``: a program of one's own.

CPU seconds count all threads. Programs are those that XLA compiled or that JAX read from the disk,
from a log in a run of its own.
"""

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = "first_answer"
PREDICT, TIMM = "lska-jax predict", "timm, convnext_atto"
EAGER, JITTED = "create_model, eager call", "create_model, jitted call"
FIRST, SECOND = "first", "second"

_REPETITIONS = {SECOND: 7, FIRST: 2}
_EXPECTED = "two to three minutes on two cores"
_COMPILED = "Finished XLA compilation of"
_CREATE = """
import sys
import jax.numpy as jnp
from flax import nnx
from lska_jax import create_model
model = create_model("van_lska_tiny")
model.eval()
images = jnp.ones((1, 224, 224, 3))
call = nnx.jit(lambda model, images: model(images)) if "jit" in sys.argv else None
(call(model, images) if call else model(images)).block_until_ready()
"""
_TIMM = """
import sys
import torch
from PIL import Image
import timm
from timm.data import create_transform, resolve_data_config
weights, photo = sys.argv[1:]
if photo == "-":
    import safetensors.torch
    safetensors.torch.save_file(timm.create_model("convnext_atto").state_dict(), weights)
    sys.exit()
torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
model = timm.create_model("convnext_atto", checkpoint_path=weights).eval()
transform = create_transform(**resolve_data_config({}, model=model))
with torch.inference_mode():
    scores = model(transform(Image.open(photo).convert("RGB"))[None]).softmax(-1)
print(scores.topk(5))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    with tempfile.TemporaryDirectory() as scratch:
        rows = _measure(Path(scratch), is_quick=options.quick)
    packages = results.versions_of(("timm", "torch", "pillow"))
    result = results.write_result(
        folder,
        NAME,
        conditions={**conditions, "packages": packages},
        rows=rows,
        is_quick=options.quick,
    )
    print(f"\n{tables(result)[NAME]}")


def _measure(scratch: Path, *, is_quick: bool) -> list[dict[str, Any]]:
    commands = _commands(scratch)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    programs = {}
    for number in range(1 if is_quick else max(_REPETITIONS.values())):
        for name, command in commands.items():
            for start in (FIRST, SECOND):
                if number >= _REPETITIONS[start] or (name == TIMM and start != SECOND):
                    continue
                # What makes a start the first. The jitted program is none of the eager call's.
                first = f"cache{number}" if start == FIRST else "cache0"
                cache = scratch / f"{first}_{list(commands).index(name)}"
                found.setdefault((name, start), []).append(_run(command, cache))
    for name, command in commands.items():
        if name != TIMM:
            programs[name] = _count_programs(command, scratch / f"counted_{len(programs)}")
    return [
        {
            "what": name,
            "start": start,
            "seconds": statistics.median(wall for wall, _ in runs),
            "least": min(wall for wall, _ in runs),
            "largest": max(wall for wall, _ in runs),
            "cpu_seconds": statistics.median(cpu for _, cpu in runs),
            "repetitions": len(runs),
            "programs": programs.get(name),
        }
        for (name, start), runs in found.items()
    ]


def _commands(scratch: Path) -> dict[str, list[str]]:
    """Write what the commands read, and return them."""
    from benchmarks.reading import photos

    photo, model, weights = scratch / "photo.jpg", scratch / "tiny", scratch / "atto.safetensors"
    photo.write_bytes(photos((500, 375))[0])
    _write_model(model)
    python = sys.executable
    commands = {PREDICT: [python, "-m", "lska_jax", "predict", str(model), str(photo)]}
    if importlib.util.find_spec("timm"):
        commands[TIMM] = [python, "-c", _TIMM, str(weights), str(photo)]
        subprocess.run([*commands[TIMM][:-1], "-"], check=True)
    else:
        print("timm is not installed, so nothing is compared with it: pip install '.[bench]'.")
    create = [python, "-c", _CREATE]
    return {**commands, EAGER: create, JITTED: [*create, "jit"]}


def _write_model(folder: Path) -> None:
    from lska_jax import create_model
    from lska_jax.weights.model_facts import ModelFacts
    from lska_jax.weights.model_folder import write_model_folder
    from lska_jax.weights.pretrained import arrays_of

    model = create_model("van_lska_tiny")
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    write_model_folder(folder, facts, arrays_of(model))


def _run(command: list[str], cache: Path, **variables: str) -> tuple[float, float]:
    """Return the seconds and CPU seconds of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=_environment(cache, variables), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed; what it said is above.")
    return seconds, usage.ru_utime + usage.ru_stime


def _count_programs(command: list[str], cache: Path) -> dict[str, int]:
    """Return how many programs the first and the second start compiled, or read from the disk."""
    counts = {}
    for start in (FIRST, SECOND):
        done = subprocess.run(
            command,
            env=_environment(cache, {"JAX_LOG_COMPILES": "1"}),
            capture_output=True,
            text=True,
            check=True,
        )
        counts[start] = done.stderr.count(_COMPILED)
    return counts


def _environment(cache: Path, variables: Mapping[str, str]) -> dict[str, str]:
    # A user's command has none of the benchmark's settings.
    own = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_WAIT_POLICY")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "XDG_CACHE_HOME": str(cache), **variables}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table of seconds, CPU seconds and programs, and ours over timm."""
    from benchmarks.results import markdown_table

    timm = next((row["seconds"] for row in result["rows"] if row["what"] == TIMM), None)
    lines = []
    for row in sorted(result["rows"], key=lambda row: (row["what"] != PREDICT, row["start"])):
        is_timm, is_predict = row["what"] == TIMM, row["what"] == PREDICT
        spread = f"{row['seconds']:.2f} ({row['least']:.2f} to {row['largest']:.2f})"
        start = "every" if is_timm else row["start"]
        programs = "none" if row["programs"] is None else str(row["programs"][row["start"]])
        over = f"{timm / row['seconds']:.2f}" if timm and is_predict else ""
        lines.append([row["what"], start, spread, f"{row['cpu_seconds']:.2f}", programs, over])
    header = ["", "Start", "seconds", "CPU seconds", "Programs of XLA", "timm's time over it"]
    return {NAME: markdown_table(header, lines)}


if __name__ == "__main__":
    main(sys.argv[1:])
