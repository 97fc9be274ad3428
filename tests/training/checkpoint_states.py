"""A small state of every kind of leaf and container, and checkpoints of it."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lska_jax.training.checkpoint.checkpointer import (
    Checkpointer,
)


class Pair(NamedTuple):
    """A NamedTuple, as optimizer states are."""

    first: jax.Array
    second: dict


@flax.struct.dataclass
class Train:
    """A dataclass, as train states are."""

    params: dict
    opt_state: tuple
    ema: dict | None


def make_state(seed=0):
    key = jax.random.key(seed)
    params = {
        "kernel": jax.random.normal(key, (7, 5), jnp.float32),
        "scale": jax.random.normal(key, (5,), jnp.bfloat16),
        "blocks": {0: {"count": jnp.arange(3, dtype=jnp.int32)}, 1: {"mask": jnp.arange(4) > 1}},
    }
    return Train(params, (optax.adamw(1e-3).init(params), Pair(jnp.uint8(seed), {})), None)


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.array(a).tobytes() == np.array(b).tobytes()


def flip_a_bit(folder):
    """Change one bit in the largest file of arrays below `folder`, and return that file."""
    victim = max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    return victim


def save_steps(directory, steps, *, metrics=None, **options):
    with Checkpointer(directory, **options) as checkpointer:
        for step in steps:
            metric = (metrics or {}).get(step)
            checkpointer.save(step, make_state(step), metadata={"epoch": step}, metric=metric)
