"""Small runs that the checkpoint tests start as processes of their own, some to be killed.

Usage: python checkpoint_runs.py {save_forever,fill_disk} DIRECTORY
"""

import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lska_jax.training.checkpoint.checkpointer import (
    Checkpointer,
    CheckpointSaveFailed,
)


class Moments(NamedTuple):
    """A stand-in for an optimizer's state: a NamedTuple inside a tuple."""

    count: Any
    mean: Any


def state_at(step: int, *, size: int = 200_000) -> dict[str, Any]:
    """Return a state whose every bit follows from `step`."""
    draw = np.random.default_rng(step)
    kernel = jnp.asarray(draw.standard_normal(size, dtype=np.float32)).reshape(-1, 8)
    return {
        "params": {"dense": {"kernel": kernel, "bias": kernel[0].astype(jnp.bfloat16)}},
        "opt_state": (Moments(jnp.int32(step), {"kernel": kernel * 2}), ()),
        "step": jnp.int32(step),
    }


def abstract(state: Any) -> Any:
    """Return shapes and data types of `state`."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def same_bits(left: Any, right: Any) -> bool:
    """Say whether two pytrees agree in structure, data types and every byte."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(
        a.dtype == b.dtype and a.shape == b.shape and np.array(a).tobytes() == np.array(b).tobytes()
        for a, b in pairs
    )


def resume(checkpointer: Checkpointer) -> int:
    """Return the step to go on from, after comparing it with what it must contain."""
    step = checkpointer.latest_step()
    if step is None:
        return 0
    state, metadata = checkpointer.restore(abstract(state_at(0)))
    if metadata != {"epoch": step} or not same_bits(state, state_at(step)):
        sys.exit(f"step {step} was restored with another content")
    return step


def save_forever(directory: Path) -> None:
    """Resume, say so, then save step after step until somebody kills this process."""
    with Checkpointer(directory, keep_latest=1, keep_best=1) as checkpointer:
        step = resume(checkpointer)
        debris = [path.name for path in directory.iterdir() if not path.name.isdigit()]
        print(f"resumed {step} debris {debris}", flush=True)
        while True:
            step += 1
            metric = 1 / step if step % 3 == 0 else None
            checkpointer.save(step, state_at(step), metadata={"epoch": step}, metric=metric)
            print(f"saving {step}", flush=True)


def fill_disk(directory: Path) -> None:
    """Save once, then once more on a disk that has become full."""
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(1, state_at(1, size=8), metadata={"epoch": 1})
        checkpointer.wait()
        # The kernel refuses larger files from here on, as a full disk would.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            checkpointer.save(2, state_at(2), metadata={"epoch": 2})
            checkpointer.wait()
        except CheckpointSaveFailed as error:
            print(error, flush=True)
        else:
            sys.exit("the save went through")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            checkpointer.save(3, state_at(3), metadata={"epoch": 3})
        except CheckpointSaveFailed:
            print("step 3 refused", flush=True)
        print("steps", checkpointer.all_steps(), flush=True)


if __name__ == "__main__":
    run = {"save_forever": save_forever, "fill_disk": fill_disk}
    run[sys.argv[1]](Path(sys.argv[2]))
