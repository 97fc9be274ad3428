#!/usr/bin/env bash
# A flax.nnx.Module with an attribute whose class is a subclass of tuple.
#
# Versions: flax 0.12.8, jax 0.10.2, on CPU, 2026-11.
# Expected by most: it is kept as a tuple or a NamedTuple is; what works with one of them works with it.
# Seen: nnx.split and nnx.state take the module, and module.eval() and module.train() raise
#   "IndexError: tuple index out of range", which names neither the attribute nor the module. A plain
#   tuple and a NamedTuple with the same contents pass.
# What helps: a property that makes the object when it is asked for, or a NamedTuple.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 flax==0.12.8
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys
from typing import NamedTuple

import flax
import jax
from flax import nnx

print("flax", flax.__version__, "jax", jax.__version__)


class Names(tuple):
    """A tuple with a method, as feature descriptions are in other libraries."""

    def longest(self):
        return max(self, key=len)


class Pair(NamedTuple):
    first: str
    second: str


class Network(nnx.Module):
    def __init__(self, names):
        self.layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.names = names


def outcome(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "passes"


found = {}
for names in (("stem", "head"), Pair("stem", "head"), Names(("stem", "head"))):
    network = Network(names)
    for name, call in {
        "split": lambda: nnx.split(network),
        "state": lambda: nnx.state(network),
        "eval": network.eval,
        "train": network.train,
    }.items():
        found[type(names).__name__, name] = outcome(call)
        print(type(names).__name__, name, found[type(names).__name__, name])
expected = {key: "passes" for key in found}
expected["Names", "eval"] = expected["Names", "train"] = "IndexError: tuple index out of range"
sys.exit(0 if found == expected else 1)
PYTHON
