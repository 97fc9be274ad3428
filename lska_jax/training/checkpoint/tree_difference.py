"""Say how two pytrees of arrays differ: names, shapes and data types, never values.

A checkpoint of another model has to be refused with the whole list of what does not fit,
because the first difference alone seldom tells which setting was wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lska_jax.training.checkpoint.errors import CheckpointMismatch

# Parameters come before their moments and averages, which repeat them.
_SHOWN_DIFFERENCES = 60


class Leaf(NamedTuple):
    """Shape and data type of one array in a pytree."""

    shape: tuple[int, ...]
    dtype: str


def describe_tree(tree: Any) -> dict[str, Leaf]:
    """Return `{"a/b/kernel": Leaf(shape, dtype)}` for every array of a pytree.

    Attribute names, dictionary keys and positions all become plain path elements, so a
    NamedTuple and the dictionary it is stored as have the same description.

    Args:
      tree: leaves with `shape` and `dtype`: arrays, `jax.ShapeDtypeStruct`, metadata.

    Raises:
      ValueError: a leaf that is not an array.
    """
    import jax

    described = {}
    strangers = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(_element_name(element) for element in path)
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            described[name] = Leaf(tuple(leaf.shape), str(leaf.dtype))
        else:
            strangers.append(f"{name or 'the state itself'} is a {type(leaf).__name__}")
    if strangers:
        raise ValueError(
            "every leaf of a checkpointed state must be an array; wrap others with "
            f"jnp.asarray: {'; '.join(strangers)}"
        )
    return described


def tree_difference(saved: Any, wanted: Any, *, limit: int = 20) -> list[str]:
    """List how `saved` differs from `wanted`, one readable line a difference.

    Args:
      saved: pytree of what the checkpoint holds (arrays or their metadata).
      wanted: pytree of what the model expects (arrays or `jax.ShapeDtypeStruct`).
      limit: at most this many lines; a last line counts the others. 0 for all of them.

    Returns:
      Missing names first, then unexpected ones, then shapes and data types; empty when
      the two agree in everything.
    """
    have, want = describe_tree(saved), describe_tree(wanted)
    lines = [
        f"{name}: missing from the checkpoint, model wants {leaf.shape} {leaf.dtype}"
        for name, leaf in want.items()
        if name not in have
    ]
    lines += [
        f"{name}: checkpoint has {leaf.shape} {leaf.dtype}, unexpected by the model"
        for name, leaf in have.items()
        if name not in want
    ]
    shared = [(name, have[name], leaf) for name, leaf in want.items() if name in have]
    for name, got, leaf in shared:
        if got.shape != leaf.shape:
            lines.append(f"{name}: checkpoint has {got.shape}, model wants {leaf.shape}")
        if got.dtype != leaf.dtype:
            lines.append(f"{name}: checkpoint has {got.dtype}, model wants {leaf.dtype}")
    if limit and len(lines) > limit:
        lines = [*lines[:limit], f"... and {len(lines) - limit} more"]
    return lines


def tree_bytes(tree: Any) -> int:
    """Return the size of all arrays of `tree` in bytes, without making any of them."""
    import math

    import jax.numpy as jnp

    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
        for leaf in describe_tree(tree).values()
    )


def _element_name(element: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(element, attribute):
            return str(getattr(element, attribute))
    return str(element)


def check_same_tree(saved: Any, wanted: Any, *, where: str) -> None:
    """Refuse to load `saved` where `wanted` has other names, shapes or data types.

    Args:
      saved: pytree of arrays or their shapes and data types, in the checkpoint.
      wanted: the same of the model.
      where: the checkpoint's folder, for the message.

    Raises:
      CheckpointMismatch: with one line a difference.
    """
    differences = tree_difference(saved, wanted, limit=0)
    if differences:
        raise CheckpointMismatch(
            f"{where} is a checkpoint of another model or setting; nothing was loaded. "
            f"{len(differences)} differences:\n  "
            + "\n  ".join(tree_difference(saved, wanted, limit=_SHOWN_DIFFERENCES))
        )
