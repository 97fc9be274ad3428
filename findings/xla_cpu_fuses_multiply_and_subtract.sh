#!/usr/bin/env bash
# The union of two boxes, a + b - w * h, computed by a jitted function on the CPU.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6, x86-64 CPU with FMA, 2026-11.
# Expected by most: each float32 operation of a jitted function is rounded once, so that a + b - w * h
#   has NumPy's bits; where it matters, lax.optimization_barrier around the product keeps it apart.
# Seen: XLA's CPU backend contracts the product and the subtraction into one fused multiply-add,
#   which rounds once in place of twice. Three tenths of random unions differ from NumPy's in the last
#   bit, also with an optimization_barrier around the product, while the eager operations have
#   NumPy's bits. Code that compares an overlap with a threshold, or with its own maximum computed
#   elsewhere, sees other ties.
# What helps: an operation between them that the compiler cannot look through, such as
#   jnp.maximum(w * h, 0) for areas.
# Ends 0 while the behaviour is as described, 1 where it changed, 77 on a processor without FMA.
set -euo pipefail
if [ -r /proc/cpuinfo ] && ! grep -qw fma /proc/cpuinfo; then exit 77; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

print("jax", jax.__version__, "numpy", np.__version__)
rng = np.random.default_rng(0)
a, b, w, h = rng.uniform(1, 100, (4, 100_000)).astype(np.float32)
expected = a + b - w * h


def share(union):
    return float(np.mean(np.asarray(union(*map(jnp.asarray, (a, b, w, h)))) != expected))


plain = lambda a, b, w, h: a + b - w * h
seen = {
    "eager": share(plain),
    "jitted": share(jax.jit(plain)),
    "jitted, with a barrier": share(jax.jit(lambda a, b, w, h: a + b - lax.optimization_barrier(w * h))),
    "jitted, with a maximum": share(jax.jit(lambda a, b, w, h: a + b - jnp.maximum(w * h, 0))),
}
for name, part in seen.items():
    print(f"{name}: {100 * part:.1f} % differ from NumPy's")
same = seen["eager"] == seen["jitted, with a maximum"] == 0
sys.exit(0 if same and min(seen["jitted"], seen["jitted, with a barrier"]) > 0.01 else 1)
PYTHON
