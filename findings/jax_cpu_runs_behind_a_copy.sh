#!/usr/bin/env bash
# A jitted function called with an array that is not on the device yet, on the CPU, with
# jax_cpu_enable_async_dispatch=False.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6, 2026-11.
# Expected by most: with that option a call computes in the thread that calls, and is over when it
#   returns, whatever its arguments are.
# Seen: so it is where the arguments are there. Given a NumPy array of 64 MB that lies 4 bytes beside
#   a multiple of 64, or one from jax.device_put just before, the call returns at once and its result
#   is not ready: XLA copies the array in another thread, and runs the program there, too. Its
#   temporaries then come from that thread's heap, which for glibc is at most 64 MiB: larger ones are
#   mapped and unmapped at every call.
# What helps: jax.block_until_ready on the arguments before the call.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import numpy as np

print("jax", jax.__version__)
jax.config.update("jax_cpu_enable_async_dispatch", False)
run = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: y * 0.5 + 1, x))

SIZE = 16 * 2**20


def aside():
    raw = np.full(SIZE + 32, 0.5, np.float32)
    start = (-raw.ctypes.data // 4) % 16 + 1
    return raw[start : start + SIZE]


ways = {
    "there already": lambda: jax.block_until_ready(jax.device_put(aside())),
    "NumPy": aside,
    "put just before": lambda: jax.device_put(aside()),
}
jax.block_until_ready(run(aside()))
late = {}
for name, make in ways.items():
    late[name] = 0
    for _ in range(5):
        result = run(make())
        late[name] += not result.is_ready()
        jax.block_until_ready(result)
    print(f"{name}: {late[name]} of 5 results were not ready when the call returned")
same = late["there already"] == 0 and late["NumPy"] > 0 and late["put just before"] > 0
sys.exit(0 if same else 1)
PYTHON
