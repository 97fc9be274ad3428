#!/usr/bin/env bash
# Memory of a jitted train step on the CPU, with and without jax.checkpoint around its layers.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6, 2026-11.
# Expected by most: jax.checkpoint around each of a chain of layers keeps only their inputs for the
#   backward pass, so that the step needs less temporary memory, on the CPU as on other devices.
# Seen: XLA's CPU backend drops the optimization barrier that jax.checkpoint puts in front of the
#   second computation, and the step needs no less temporary memory than without it, as
#   compiled.memory_analysis() has it.
# What helps: to make the second computation depend on the gradient by arithmetic, in a
#   jax.custom_vjp whose backward pass adds zero times the gradient to its input; or jax.lax.scan
#   over the layers with jax.checkpoint(..., prevent_cse=False), whose two loops stay apart.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp

print("jax", jax.__version__)


def layer(x, pair):
    return x + jnp.tanh(jnp.tanh(x @ pair[0])) @ pair[1]


@jax.custom_vjp
def late(x, pair):
    return layer(x, pair)


def backward(kept, gradient):
    x, pair = kept
    return jax.vjp(layer, x + 0.0 * gradient, pair)[1](gradient)


late.defvjp(lambda x, pair: (layer(x, pair), (x, pair)), backward)
x = jnp.ones((4096, 32))
pairs = [(jnp.ones((32, 256)), jnp.ones((256, 32)))] * 8


def megabytes(one):
    def loss(pairs):
        y = x
        for pair in pairs:
            y = one(y, pair)
        return jnp.sum(y)

    compiled = jax.jit(jax.grad(loss)).lower(pairs).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


seen = {"plain": megabytes(layer), "jax.checkpoint": megabytes(jax.checkpoint(layer))}
seen["late by arithmetic"] = megabytes(late)
for name, size in seen.items():
    print(f"{name}: {size:.1f} MB of temporaries")
same = seen["jax.checkpoint"] >= 0.99 * seen["plain"] and seen["late by arithmetic"] < 0.5 * seen["plain"]
sys.exit(0 if same else 1)
PYTHON
