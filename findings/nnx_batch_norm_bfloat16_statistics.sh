#!/usr/bin/env bash
# flax.nnx.BatchNorm(dtype=bfloat16): what its running statistics hold.
#
# Versions: flax 0.12.8, jax 0.10.2, on CPU, 2026-11.
# Expected by most: dtype is the type of the computation and param_dtype, float32, that of what is kept; the
#   running mean and variance of float32 inputs are float32 numbers.
# Seen: the statistics are float32 arrays whose values were rounded to bfloat16 before they were averaged. With
#   momentum 0 and inputs around 1.0014 the running mean is 1.0 exactly, with dtype=float32 it is 1.00135. A
#   check of the arrays' types finds nothing; an evaluation with these statistics is off by up to 0.4 %.
# What helps: BatchNorm with dtype=float32, and a cast of its output.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 flax==0.12.8
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

print("flax", flax.__version__, "jax", jax.__version__)
rng = np.random.default_rng(0)
x = jnp.asarray(1.001 + 1e-3 * rng.standard_normal((8, 1)), jnp.float32)
means = {}
for dtype in (jnp.bfloat16, jnp.float32):
    norm = nnx.BatchNorm(1, momentum=0.0, dtype=dtype, rngs=nnx.Rngs(0))
    norm(x)
    assert norm.mean[...].dtype == jnp.float32
    means[jnp.dtype(dtype).name] = float(norm.mean[...][0])
print("mean of the inputs", float(jnp.mean(x)), "running mean by dtype", means)
is_rounded = means["bfloat16"] == 1.0 and abs(means["float32"] - float(jnp.mean(x))) < 1e-6
sys.exit(0 if is_rounded else 1)
PYTHON
