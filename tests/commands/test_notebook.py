"""A real Jupyter kernel: an event loop runs, output is no terminal, and the kernel survives."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("ipykernel", reason="a notebook needs ipykernel and jupyter_client")
manager = pytest.importorskip("jupyter_client.manager", reason="a notebook needs jupyter_client")

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120
CONFIG = """
import lska_jax, signal
mine = 41
handler = signal.getsignal(signal.SIGINT)
config = lska_jax.load_config("digits:11")
config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
config.data.num_workers = 0
config.optimizer.update({"epochs": 2, "warmup_epochs": 1})
"""
INTERRUPTED = """
import os, threading, time
config.optimizer.epochs = 10_000
def interrupt():
    metrics = f"{workdir}/metrics.jsonl"
    while not (os.path.exists(metrics) and os.path.getsize(metrics)):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    lska_jax.train(config, workdir=workdir)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return what runs a cell in a kernel and returns what it printed."""
    kernel = manager.KernelManager()
    kernel.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("GLIBC_TUNABLES", None)
    kernel.start_kernel(env=environment, cwd=str(tmp_path_factory.mktemp("notebook")))
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT_SECONDS)

    def run_cell(code: str) -> str:
        printed: list[str] = []

        def collect(message: dict) -> None:
            content = message["content"]
            printed.append(content.get("text") or "\n".join(content.get("traceback", [])))

        client.execute_interactive(code, output_hook=collect, timeout=TIMEOUT_SECONDS)
        return "".join(printed)

    yield run_cell
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_a_notebook_trains_twice_is_interrupted_and_keeps_its_state(run):
    assert run(CONFIG) == ""
    first = run("print(lska_jax.train(config, workdir='first')['eval/top1'])")
    assert "Ready after" in first and "Finished" in first and "GLIBC_TUNABLES" in first
    second = run("print(lska_jax.train(config, workdir='second')['eval/top1'])")
    assert "GLIBC_TUNABLES" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    assert run(f"workdir = 'third'{INTERRUPTED}").endswith("Interrupted\n")
    assert run("print(mine, signal.getsignal(signal.SIGINT) == handler)") == "41 True\n"


def test_running_the_program_in_a_cell_neither_replaces_nor_ends_the_kernel(run):
    run("kept = 42")
    printed = run(f"%run {ROOT / 'train.py'} --config digits --config.model.k=24")
    assert "Nearest valid k: 23 or 29" in printed
    assert run("print(kept)") == "42\n"
