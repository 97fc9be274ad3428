"""Inject every fault for real and tell what was lost.

python -m tests.faults                       # everything, 3 times
python -m tests.faults --times 10 --only SIGTERM
python -m tests.faults --times 5 --json faults.json
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This process compares arrays only.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from tests.faults.damage import can_mount
from tests.faults.injections import FAULTS
from tests.faults.lab import Lab


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="how often each fault is injected")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--json", type=Path, help="where to add the results")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; default: nowhere")
    options = parser.parse_args()
    chosen = {name: fault for name, fault in FAULTS.items() if options.only in name}
    if not chosen:
        parser.error(f"no fault has {options.only!r} in its name: {', '.join(FAULTS)}")
    if not can_mount() and chosen.pop("full disk", None):
        print("full disk: left out, no namespace to mount a small disk in", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lab, results = Lab(folder), []
        for name, fault in chosen.items():
            results.append(measure(name, fault, lab, options.times))
            print(row(results[-1]), flush=True)
            if options.json:
                keep(options.json, results[-1])
    if any(result["lost"] for result in results):
        sys.exit(1)


def measure(name: str, fault: Any, lab: Lab, times: int) -> dict[str, Any]:
    """Inject one fault so often."""
    started = time.monotonic()
    injections = list(fault(lab, times))
    seconds = [injection.seconds for injection in injections if injection.seconds is not None]
    return {
        "fault": name,
        "times": len(seconds),
        "lost": [text for injection in injections for text in injection.lost],
        "seconds_median": round(statistics.median(seconds), 2),
        "seconds_max": round(max(seconds), 2),
        "command": f"python -m tests.faults --times {times} --only {name!r}",
        "took_seconds": round(time.monotonic() - started),
    }


def row(result: dict[str, Any]) -> str:
    lost = "; ".join(result["lost"]) or "nothing"
    return (
        f"| {result['fault']} | {result['times']} | {lost} | "
        f"{result['seconds_median']:.2f} / {result['seconds_max']:.2f} | `{result['command']}` |"
    )


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result into the file, in the place of an older one of the same fault."""
    results = json.loads(path.read_text()) if path.exists() else []
    others = [other for other in results if other["fault"] != result["fault"]]
    path.write_text(json.dumps([*others, result], indent=1) + "\n")


if __name__ == "__main__":
    main()
