"""Read a model from wherever it may be: every command that takes a model takes all of these.

A model folder; a run, its checkpoints or one step; a PyTorch or safetensors file; a model that
comes with the package; a Hub id. What is on the disk is never taken for a name or a Hub id.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from lska_jax.training.checkpoint.load_tree import CHECKPOINTS_FOLDER, find_step_folder, load_tree
from lska_jax.weights.hub import HUB_PREFIX
from lska_jax.weights.in_the_box import BOX_PREFIX, explain_hidden, find_on_disk
from lska_jax.weights.model_facts import CONFIG_NAME, FORMAT, WEIGHTS_NAME, ModelFacts
from lska_jax.weights.model_folder import (
    is_model_folder,
    read_facts,
    read_model_folder,
    write_model_folder,
)

if TYPE_CHECKING:
    import numpy as np

# What is no path at all may be a name that ``find_model_folder`` knows.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_LIKE_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
KINDS = (
    "a model folder, a run, a step of its checkpoints, a checkpoint file, a Hub id, or cifar10, "
    "the model that comes with the package"
)


def read_model(
    place: str | Path, *, report: Callable[[str], None] = print
) -> tuple[ModelFacts, dict[str, np.ndarray]]:
    """Return a model's facts and its parameters and statistics by path.

    Of a run the best step is taken, averaged where the run kept an average.

    Args:
      place: where the model is.
      report: receives remarks, one line each.

    Raises:
      FileNotFoundError: there is nothing; a path is said to be missing.
      ValueError: a damaged folder or file, or a file that does not tell its model.
      CheckpointDamaged: a step is not what was saved.
      ImportError: a PyTorch file or a Hub id, and the package for it is not installed.
      ConnectionError: the Hub does not answer.
    """
    path = local_path(place)
    if path is None:
        return _read_from_hub(str(place))
    if path.is_file():
        return _read_checkpoint(path, report)
    if is_run(path):
        from lska_jax.training.publish import read_run

        run = read_run(path, report=report)
        return run.facts, run.arrays
    if not (path / CONFIG_NAME).is_file() or (path / CHECKPOINTS_FOLDER).is_dir():
        raise FileNotFoundError(
            f"There is no checkpoint in {path}, and it is no model folder. Give {KINDS}."
            f"{explain_hidden(path)}"
        )
    return read_model_folder(path)


def read_model_facts(place: str | Path) -> ModelFacts:
    """Return a model's facts alone; arguments and errors are those of ``read_model``."""
    path = local_path(place)
    if path is None or (path.is_dir() and is_model_folder(path)):
        return read_facts(str(place))
    return read_model(path, report=lambda remark: None)[0]


class TrainedWeights(NamedTuple):
    """Weights as they were trained, whatever network they are for.

    Attributes:
      arrays: parameters and statistics by path, averaged where a run kept an average.
      place: where they are, for messages.
      class_names: of the network's outputs, in their order; None where they are not known.
      step: of the run; 0 where they are no run's.
      record: of the run's checkpoint, see ``run_record``; empty where they are no run's.
      facts: of the model folder; None where they are a run's.
    """

    arrays: dict[str, Any]
    place: str
    class_names: tuple[str, ...] | None
    step: int = 0
    record: Mapping[str, Any] = MappingProxyType({})
    facts: ModelFacts | None = None

    @property
    def task(self) -> str:
        """The task that they were trained for; classification where they are no run's."""
        from lska_jax.tasks.table import DEFAULT_TASK

        config = self.record.get("config")
        return str(config.get("task", DEFAULT_TASK)) if isinstance(config, dict) else DEFAULT_TASK


def read_weights(place: str | Path) -> TrainedWeights:
    """Return the weights of a place; see ``read_model``, also for what is raised.

    Unlike there, a run's checkpoint need not say which network it is of.
    """
    path = local_path(place)
    if path is None or not is_run(path):
        facts, arrays = read_model(place)
        return TrainedWeights(arrays, str(place), facts.class_names, facts=facts)
    from lska_jax.training.run_record import check_record, class_names_of

    loaded = load_tree(path, step="best")
    check_record(loaded.metadata, where=loaded.folder)
    return TrainedWeights(
        evaluation_arrays(loaded.tree),
        str(loaded.folder),
        class_names_of(loaded.metadata),
        step=loaded.step,
        record=loaded.metadata,
    )


def evaluation_arrays(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters and statistics of a loaded checkpoint by path, averaged where it has them.

    Args:
      tree: ``LoadedTree.tree`` of a ``TrainState``.
    """
    chosen = tree["ema"] if tree.get("ema") else tree
    return {**chosen["params"], **chosen["batch_stats"]}


@contextlib.contextmanager
def as_model_folder(place: str | Path, *, report: Callable[[str], None] = print) -> Iterator[Path]:
    """Give a model as a model folder: its own, or one that is gone afterwards.

    Args:
      place: where the model is; see ``read_model``, also for what is raised.
      report: receives remarks, one line each.

    Yields:
      The folder.
    """
    path = local_path(place)
    if path is not None and path.is_dir() and not is_run(path):
        yield path
        return
    facts, arrays = read_model(place, report=report)
    with tempfile.TemporaryDirectory() as temporary:
        # The name is shown, for example as the title of an export.
        folder = Path(temporary) / model_name(place)
        write_model_folder(folder, facts, arrays)
        del arrays
        yield folder


def local_path(place: str | Path) -> Path | None:
    """Return the path that a place is, also of a model of the package; None for other names.

    A file of a model folder of this package stands for the folder.

    Raises:
      FileNotFoundError: it is a path and nothing is there, or "box:" before no model.
      ValueError: something is there that is neither file nor folder.
    """
    text = str(place)
    if isinstance(place, str) and text.startswith(HUB_PREFIX):
        return None
    if path := find_on_disk(place):
        if not (path.is_dir() or path.is_file()):
            raise ValueError(f"{path} is neither a file nor a folder; give {KINDS}.")
        return path.parent if _is_of_own_folder(path) else path
    if isinstance(place, str) and _NAME.fullmatch(text):
        return None
    path = Path(text).expanduser()
    is_like_hub_id = isinstance(place, str) and _LIKE_HUB_ID.fullmatch(text) is not None
    # "runs/typo" has the form of a Hub id; a folder runs/ here says what was meant.
    if is_like_hub_id and not Path(path.parts[0]).exists():
        return None
    hub_id = f" (of this name: {HUB_PREFIX}{text})" if is_like_hub_id else ""
    raise FileNotFoundError(
        f"There is no folder or file {path}{_neighbours(path)}. Give {KINDS}{hub_id}."
    )


def _is_of_own_folder(path: Path) -> bool:
    """Tell whether a path is one of the two files that make a model folder of this package."""
    if path.name not in (CONFIG_NAME, WEIGHTS_NAME) or not is_model_folder(path.parent):
        return False
    with (path.parent / CONFIG_NAME).open("rb") as file:
        return json.dumps(FORMAT).encode() in file.read(200)


def is_run(path: Path) -> bool:
    """Tell whether a folder is a run, its checkpoints, or one step of them."""
    if is_model_folder(path):
        return False
    try:
        find_step_folder(path)
    except FileNotFoundError:
        return False
    return True


def model_name(place: str | Path) -> str:
    """Return a short name for the model of a place: the last part that is its own."""
    path = Path(place).expanduser()
    if not path.exists():
        # Of a Hub id without its revision.
        name = str(place).partition("@")[0].rstrip("/").rsplit("/", 1)[-1]
        return name.removeprefix(HUB_PREFIX).removeprefix(BOX_PREFIX)
    if path.is_file():
        return path.name.partition(".")[0] or path.name
    return path.name or path.resolve().name


def _read_from_hub(place: str) -> tuple[ModelFacts, dict[str, Any]]:
    try:
        return read_model_folder(place)
    except (ImportError, ConnectionError) as error:
        # "There is no folder" is said once.
        if "no folder" in str(error) or place.startswith(HUB_PREFIX):
            raise
        raise type(error)(
            f"There is no folder or file {place}, so it was taken for a Hub id. {error}"
        ) from error


def _read_checkpoint(
    path: Path, report: Callable[[str], None]
) -> tuple[ModelFacts, dict[str, np.ndarray]]:
    """Import a PyTorch or safetensors file into a folder that is gone afterwards."""
    from lska_jax.weights.import_torch import import_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        try:
            import_checkpoint(path, Path(folder) / "model", report=report)
        except ValueError as error:
            raise ValueError(
                f"{error} If the file needs further options, import it once: lska-jax import "
                f"{path} --out DIR, and pass DIR here."
            ) from error
        return read_model_folder(Path(folder) / "model")


def _neighbours(path: Path) -> str:
    """Say what is there instead, where the folder above is."""
    try:
        names = sorted(one.name for one in path.parent.iterdir() if not one.name.startswith("."))
    except OSError:
        return ""
    if not names or path.parent == Path():
        return ""
    more = ", ..." if len(names) > 8 else ""
    return f"; {path.parent} holds {', '.join(names[:8])}{more}"
