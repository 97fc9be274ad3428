"""A run is resumed with another number of cores, and continues within rounding."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = {
    "model.dims": "(8,16)",
    "model.depths": "(1,1)",
    "model.ffn_ratios": "(2,2)",
    "training.batch_size": "240",
    "training.ema_decay": "0.0",
    "training.log_every_steps": "1",
    "data.num_workers": "0",
    "optimizer.warmup_epochs": "0",
}


def train(workdir: Path, *, epochs: int, cores: set[int]) -> None:
    overrides = [f"--config.{name}={value}" for name, value in TINY.items()]
    own = os.sched_getaffinity(0)
    # The child inherits them; code between fork and exec would make JAX warn here.
    os.sched_setaffinity(0, cores)
    try:
        done = subprocess.run(
            [sys.executable, "train.py", "--config", "configs/digits.py", "--workdir", str(workdir)]
            + [*overrides, f"--config.optimizer.epochs={epochs}"],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.sched_setaffinity(0, own)
    assert done.returncode == 0, done.stderr


def losses(workdir: Path) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_another_number_of_cores_continues_within_rounding(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    train(tmp_path / "two", epochs=1, cores=set(cores[:2]))
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    before = losses(tmp_path / "two")
    train(tmp_path / "two", epochs=2, cores=set(cores[:2]))
    train(tmp_path / "one", epochs=2, cores={cores[0]})
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert list(two) == list(one) == list(range(1, 2 * len(before) + 1))
    assert [one[step] for step in before] == list(before.values())
    # Six steps of float32 sums in other parts.
    assert one == pytest.approx(two, rel=1e-4)
