#!/usr/bin/env bash
# flax.nnx.LayerNorm of values with a mean of 2048 and a spread of 1.
#
# Versions: flax 0.12.8, jax 0.10.2, on CPU, 2026-11.
# Expected by most: float32 inputs leave a LayerNorm with a standard deviation of 1.
# Seen: nnx.LayerNorm's default is use_fast_variance=True, a mean of squares less a squared mean. With
#   a mean of 2048 both are 4.2 million and float32 resolves them to 0.25 or 0.5: the variance comes
#   out as 0 for many rows, which leave divided by the square root of epsilon alone, with a standard
#   deviation of hundreds. The documentation speaks of a "faster, but less numerically stable"
#   calculation; torch.nn.LayerNorm has no such default.
# What helps: nnx.LayerNorm(..., use_fast_variance=False), two passes over the last axis.
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
x = jnp.asarray(2048 + rng.standard_normal((4, 36, 64)), jnp.float32)
spread = {}
for is_fast in (True, False):
    norm = nnx.LayerNorm(64, use_fast_variance=is_fast, rngs=nnx.Rngs(0))
    spread[is_fast] = float(np.std(np.asarray(norm(x))))
default = float(np.std(np.asarray(nnx.LayerNorm(64, rngs=nnx.Rngs(0))(x))))
print(f"standard deviation by default {default:.3f}, fast {spread[True]:.3f}, exact {spread[False]:.3f}")
sys.exit(0 if default == spread[True] > 2 and abs(spread[False] - 1) < 1e-3 else 1)
PYTHON
