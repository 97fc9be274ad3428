#!/usr/bin/env bash
# The gradient of a bias that is cast to bfloat16 and added to a bfloat16 map.
#
# Versions: jax 0.10.2, jaxlib 0.10.2, on CPU, 2026-11.
# Expected by most: that XLA sums in float32 inside a reduction and rounds the result once, since it
#   does so for matrix products, and for this sum over one axis (the gradient would be 100,352).
# Seen: over three axes the sum is rounded to bfloat16 after every addition. XLA sums windows of
#   8 x 32 x 32 values, one value after the other; a running sum of ones stops at 256, where one more
#   is half a unit in the last place and rounds to even. Sixteen windows make 4096 of 100,352, 4 percent
#   of the gradient. A sum over one axis of 100,352 ones is exact. Nothing warns.
# What helps: compute the addition in float32 and cast its result; the gradient is then a float32 sum.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp

print("jax", jax.__version__)
maps = jnp.ones((8, 112, 112, 64), jnp.bfloat16)


def rounded_first(bias, maps):
    return (maps + bias.astype(jnp.bfloat16)).astype(jnp.float32).sum()


def rounded_last(bias, maps):
    return (maps.astype(jnp.float32) + bias).astype(jnp.bfloat16).astype(jnp.float32).sum()


bias = jnp.zeros(64, jnp.float32)
first = float(jax.jit(jax.grad(rounded_first))(bias, maps)[0])
last = float(jax.jit(jax.grad(rounded_last))(bias, maps)[0])
one_axis = float(jax.jit(lambda x: jnp.sum(x, axis=0))(maps.reshape(-1, 64))[0])
print(f"true gradient {8 * 112 * 112}, bias cast to bfloat16 {first:.0f}, added in float32 {last:.0f}")
print(f"sum over one axis of as many ones in bfloat16 {one_axis:.0f}")
sys.exit(0 if (first, last) == (4096.0, 100352.0) else 1)
PYTHON
