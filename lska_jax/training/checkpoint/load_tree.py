"""Read arrays out of a checkpoint without knowing its structure or its owner.

For evaluation and fine-tuning: what was trained elsewhere is read as nested dictionaries of
NumPy arrays, and the caller decides what of it fits. Nothing in the folder is changed, so a
run that is still training may be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.training.checkpoint.errors import CheckpointDamaged
from lska_jax.training.checkpoint.folders import step_folders
from lska_jax.training.checkpoint.manifest import (
    MANIFEST_NAME,
    STATE_NAME,
    ManifestError,
    find_damage,
    read_manifest,
)
from lska_jax.training.checkpoint.orbax_quiet import quiet_orbax

CHECKPOINTS_FOLDER = "checkpoints"


class LoadedTree(NamedTuple):
    """What `load_tree` read.

    Attributes:
      tree: nested dictionaries (lists for tuples) of NumPy arrays in their saved data type.
        Keys are strings, also those that were integers.
      metadata: what the step was saved with.
      step: the global step.
      folder: the step's folder.
    """

    tree: dict[str, Any]
    metadata: dict[str, Any]
    step: int
    folder: Path


def load_tree(
    path: str | Path,
    *,
    step: int | str = "latest",
    skip: Sequence[str] = ("opt_state",),
) -> LoadedTree:
    """Read a checkpoint as nested dictionaries of NumPy arrays.

    Args:
      path: a run's output folder, its `checkpoints` folder, or one step's folder.
      step: which step of a folder that holds several: a number, "latest" or "best".
        Ignored for one step's folder.
      skip: top-level names of the state that are not read from the disk.

    Raises:
      FileNotFoundError: no checkpoint there, or not this step; says what was found.
      ValueError: `step` is neither a number nor "latest" nor "best".
      CheckpointDamaged: the step's files are not what was saved.
    """
    folder = find_step_folder(path, step=step)
    damage = find_damage(folder)
    if damage:
        others = [number for number, other in step_folders(folder.parent) if other != folder]
        raise CheckpointDamaged(
            f"{folder} is damaged: {'; '.join(damage)}. "
            + (f"Other steps there: {others}." if others else "There is no other step.")
        )
    quiet_orbax()
    import jax
    import numpy as np
    import orbax.checkpoint.experimental.v1 as ocp

    saved = ocp.metadata(folder, checkpointable_name=STATE_NAME).metadata
    wanted = {name: part for name, part in saved.items() if name not in skip}
    context = ocp.Context()
    context.pytree_options.loading.partial_load = True
    with context:
        # A broadcast scalar tells Orbax shape, type and "NumPy" without taking any memory.
        tree = ocp.load(
            folder,
            jax.tree.map(
                lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), wanted
            ),
            checkpointable_name=STATE_NAME,
        )
    manifest = read_manifest(folder)
    return LoadedTree(tree, manifest["metadata"], manifest["step"], folder)


def find_step_folder(path: str | Path, *, step: int | str = "latest") -> Path:
    """Return the folder of one step, given a run's folder, its `checkpoints`, or the step itself.

    Raises:
      FileNotFoundError: no checkpoint there, or not this step; says what was found.
      ValueError: `step` is neither a number nor "latest" nor "best".
    """
    if not isinstance(step, int) and step not in ("latest", "best"):
        raise ValueError(f"step is {step!r}; give a step number, 'latest' or 'best'.")
    path = Path(path).absolute()
    if (path / MANIFEST_NAME).is_file():
        return path
    folders = dict(step_folders(path / CHECKPOINTS_FOLDER) or step_folders(path))
    if not folders:
        raise FileNotFoundError(
            f"There is no checkpoint in {path}: give a run's output folder, its "
            f"{CHECKPOINTS_FOLDER} folder, or one step's folder."
        )
    if step == "latest":
        return folders[max(folders)]
    if step == "best":
        scores = [
            (metric, number)
            for number in folders
            if (metric := _metric_of(folders[number])) is not None
        ]
        if not scores:
            raise FileNotFoundError(
                f"No step in {path} was saved with a metric; steps there: {sorted(folders)}."
            )
        return folders[max(scores)[1]]
    if step not in folders:
        raise FileNotFoundError(
            f"There is no step {step} in {path}; steps there: {sorted(folders)}."
        )
    return folders[step]


def _metric_of(folder: Path) -> float | None:
    try:
        return read_manifest(folder)["metric"]
    except ManifestError:
        return None


def with_shardings(abstract_state: Any) -> Any:
    """Give leaves without a sharding the first local device, instead of the saved topology.

    Args:
      abstract_state: pytree of `jax.ShapeDtypeStruct`.
    """
    import jax

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> Any:
        sharding = getattr(leaf, "sharding", None) or here
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, abstract_state)
