"""Programs on CPU run in the thread that calls them, in processes that are ours."""

import subprocess
import sys

import jax
import pytest

from lska_jax.running.inline_dispatch import OPTION, use_inline_dispatch


@pytest.mark.parametrize(
    ("command_line", "is_asynchronous"),
    [
        ("python -m lska_jax train", False),
        ("python train.py --config a.py", False),
        ("python -m ipykernel_launcher", True),
    ],
)
def test_the_option_is_set_in_our_processes_alone(monkeypatch, command_line, is_asynchronous):
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(sys, "orig_argv", command_line.split())
    before = jax.config.values[OPTION]
    assert before is True
    try:
        use_inline_dispatch()
        assert jax.config.values[OPTION] is is_asynchronous
    finally:
        jax.config.update(OPTION, before)


_PROGRAM = """
import jax, numpy as np
from lska_jax.running import parallel

jax.config.update("jax_cpu_enable_async_dispatch", False)
step = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: y * 0.5 + 1, x))
sharding = parallel.batch_sharding(parallel.make_mesh(devices=jax.devices()[:1]))
for _ in range(3):
    batch = {"x": np.full((4097, 4096), 0.5, np.float32)[1:]}
    placed = parallel.to_global(batch, sharding, global_batch_size=4096)
    print(step(placed["x"]).is_ready())
"""


def test_a_step_that_gets_a_fresh_batch_is_over_when_its_call_is():
    # In a process of its own: the option is without effect once JAX has its devices.
    answers = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert answers.stdout.split() == ["True"] * 3
