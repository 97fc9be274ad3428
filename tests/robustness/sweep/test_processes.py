"""``evaluate`` in processes of its own: two that share a sweep, one that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from known_models import PREPARED, reader, write_pictures

from lska_jax.robustness import evaluate
from lska_jax.robustness.sweep.results_file import load_results

ROOT = Path(__file__).parents[3]
NAMES = ("bird", "car", "cat", "dog")
TIMEOUT_SECONDS = 240
KILLED_SUITE = "imagenet_c/brightness,imagenet_c/contrast"

# Arguments: folder of the results, clean images, suite, and what joins the processes.
SCRIPT = """
import sys
sys.path.insert(0, "tests")
out, clean, suite, *joined = sys.argv[1:]
from lska_jax.running import parallel
if joined:
    address, number = joined
    parallel.start_processes(coordinator_address=address, num_processes=2, process_id=int(number))
from known_models import PREPARED, reader
from lska_jax.robustness import evaluate
evaluate({"own": reader(4)}, out=out, preprocessing=PREPARED, suite=suite, generate=True,
         clean=clean, clean_split="test", class_names=("bird", "car", "cat", "dog"),
         batch_size=8, num_workers=0)
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clean")
    answers = {"bird": [0, 0, 1], "car": [1, 1], "cat": [2, 3], "dog": [3, 3, 0]}
    write_pictures(folder / "own" / "test", answers, suffix="png")
    broken = folder / "own" / "test" / "dog" / "image_9.png"
    broken.write_bytes(b"no image")
    return f"folder:{folder / 'own'}"


def start(out: Path, clean: str, suite: str, *joined: str) -> subprocess.Popen[str]:
    # One device each, and programs as the other tests compile them.
    flags = os.environ["XLA_FLAGS"].split()
    flags = [flag for flag in flags if "device_count" not in flag]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), clean, suite, *joined],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep_here(out: Path, clean: str, suite: str) -> None:
    """Run the same sweep in this process, which has eight devices."""
    evaluate(
        {"own": reader(4)},
        out=out,
        preprocessing=PREPARED,
        suite=suite,
        generate=True,
        clean=clean,
        clean_split="test",
        class_names=NAMES,
        batch_size=8,
        num_workers=0,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, errors
    return output


@pytest.mark.slow
def test_two_processes_measure_what_one_measures_and_one_writes(tmp_path, clean):
    suite = "imagenet,imagenet_c/gaussian_noise/5,imagenet_c/pixelate/3"
    sweep_here(tmp_path / "one", clean, suite)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    both = [start(tmp_path / "two", clean, suite, address, str(number)) for number in (0, 1)]
    first, second = (finish(process) for process in both)
    assert "clean | own | top1 0.7000" in first
    assert "own" not in second.replace(clean, "")
    one, two = (load_results(tmp_path / name / "results.jsonl") for name in ("one", "two"))
    assert one.plan == two.plan and len(two.cells) == 3
    for key, result in one.cells.items():
        assert result.num_broken == 1
        assert two.cells[key].scores == result.scores
        for name, array in result.outcomes.items():
            np.testing.assert_array_equal(two.cells[key].outcomes[name], array)


def test_a_sweep_that_is_killed_repeats_nothing(tmp_path, clean, capsys):
    file = tmp_path / "results.jsonl"
    process = start(tmp_path, clean, KILLED_SUITE)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (file.exists() and file.read_bytes().count(b'{"result"') >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = load_results(file)
    assert 3 <= len(before.cells) < 10
    sweep_here(tmp_path, clean, KILLED_SUITE)
    assert f"{len(before.cells)} of 10 cells are measured already" in capsys.readouterr().out
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    cells = [tuple(line["result"]["cell"]) for line in lines if "result" in line]
    assert len(cells) == len(set(cells)) == 10
    after = load_results(file)
    for key, result in before.cells.items():
        np.testing.assert_array_equal(result.outcomes["top1"], after.cells[key].outcomes["top1"])
