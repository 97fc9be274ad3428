"""What a task is: the trainer asks these questions and knows nothing else about it.

A task says what a batch holds, what the loss of a batch is, what is counted in an evaluation, and
which metric decides the best checkpoint. Resume, agreed stops, skipped steps, masks of broken
examples, sharding and several processes are the trainer's, the same for every task.

A new task is a subclass of ``Task`` and a call of ``lska_jax.tasks.table.register_task``. See
``lska_jax.tasks.classification`` for one with everything.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lska_jax.data.examples import Fields, Reader
from lska_jax.data.loader import HostBatch, eval_batches, train_batches
from lska_jax.data.sources import Examples, share_examples
from lska_jax.nn.functional import FlatArrays, ModelFunctions

# A global batch on the devices: the reader's fields, each (B, ...), and "mask" (B,) bool.
Batch = dict[str, jax.Array]


class Best(NamedTuple):
    """Which metric decides which checkpoint is best.

    Attributes:
      metric: one of the names that ``Task.means`` returns.
      is_highest: whether a higher value is better.
    """

    metric: str
    is_highest: bool = True

    def score(self, value: float) -> float:
        """Return the metric's value so that higher is better."""
        return value if self.is_highest else -value


class Task(abc.ABC):
    """One task, made from a checked config.

    Methods that take a ``batch`` are traced into the compiled steps: pure functions of their
    arguments, with static shapes. All others run on the host.

    Attributes:
      best: which metric of the evaluations decides.
      constants: pytrees of NumPy arrays that a training batch holds beside its fields, by name, the
        same at every step; known before a step is traced.
    """

    best: Best

    def __init__(self, config: ConfigDict):
        self.config = config
        self.constants: dict[str, Any] = {}

    # Data

    @abc.abstractmethod
    def open_split(self, *, source: str, split: str) -> Examples:
        """Open one split and check it against the config.

        Args:
          source: as in ``config.data.source``.
          split: as in ``config.data.train_split``.

        Raises:
          ValueError: it is missing, empty, or not what the config says.
        """

    def check_splits(self, train: Examples, evaluation: Examples, *, is_held_out: bool) -> None:
        """Compare a split to train on with one to evaluate on.

        Args:
          train: the examples to train on.
          evaluation: the examples to evaluate on.
          is_held_out: whether none of them may be trained on.

        Raises:
          ValueError: they are not of the same kind, or the same where they must not be.
        """
        if not is_held_out:
            return
        if train.name == evaluation.name:
            raise ValueError(
                f"Training and evaluation would read the same images, {train.name}. Give the "
                "source split folders, or name another data.eval_split."
            )
        if share_examples(train, evaluation):
            raise ValueError(
                f"{train.name} and {evaluation.name} have images in common: evaluation would read "
                "some of the training images. Give slices that do not overlap, such as "
                "data.train_split='train[:80%]' and data.eval_split='train[80%:]'."
            )

    def class_names(self, examples: Examples) -> tuple[str, ...] | None:
        """Return the names of the model's outputs, in order; None if they are no classes.

        Args:
          examples: from ``open_split``.
        """
        del examples
        return None

    def in_class_order(self, examples: Examples, names: Sequence[str], *, whose: str) -> Examples:
        """Return examples whose labels are positions in ``names``.

        Args:
          examples: from ``open_split``.
          names: of the model's outputs, in their order.
          whose: has these names, for the message.

        Raises:
          ValueError: the examples have other classes, or, unless a task maps them, the same in
            another order.
        """
        found = self.class_names(examples)
        if found is not None and tuple(found) != tuple(names):
            raise ValueError(
                f"{examples.name} has the classes {', '.join(found)}, and {whose} "
                f"{', '.join(names)}. Give it the same, in the same order."
            )
        return examples

    def see_training(self, examples: Examples) -> None:
        """Note what the loss needs to know of the training split, before a step is traced.

        Args:
          examples: the split, its labels as the model has them.
        """
        del examples

    @abc.abstractmethod
    def train_reader(self) -> Reader:
        """Return what augments a stored example and turns it into the fields of a batch."""

    @abc.abstractmethod
    def eval_reader(self) -> Reader:
        """Return what turns a stored example into the fields of an evaluation batch."""

    def train_shapes(self) -> Sequence[Fields]:
        """Return what a training batch may look like: each entry becomes a compiled program.

        A task whose batches have several shapes, such as upright and wide images, lists them all
        and yields them from ``train_batches``, the same shape on every process at a step.
        """
        return (self.train_reader().fields,)

    def eval_shapes(self) -> Sequence[Fields]:
        """Return what an evaluation batch may look like; see ``train_shapes``."""
        return (self.eval_reader().fields,)

    def train_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Yield batches, a function of seed and step alone; see ``loader.train_batches``."""
        return train_batches(source, self.train_reader(), **loading)

    def eval_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Yield batches that hold every example once; see ``loader.eval_batches``."""
        return eval_batches(source, self.eval_reader(), **loading)

    # The training step

    def prepare(self, batch: Batch, key: jax.Array) -> tuple[Any, jax.Array]:
        """Turn a whole batch into what ``loss`` takes: normalise it, mix it, weigh its rows.

        It sees the batch before that is split into microbatches: what is counted over all rows,
        to divide by, is counted here.

        Args:
          batch: fields and mask.
          key: a PRNG key.

        Returns:
          A pytree of arrays (B, ...), and a key for ``loss`` that was not used here.
        """
        return batch, key

    @abc.abstractmethod
    def loss(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        examples: Any,
        key: jax.Array,
    ) -> tuple[jax.Array, FlatArrays]:
        """Return the loss () float32 and the new BatchNorm statistics.

        Weighted so that the losses of microbatches add up to that of the batch, and so that
        masked rows count nothing, whatever they hold.

        Args:
          functions: the model.
          params: parameters by path.
          stats: BatchNorm statistics by path.
          examples: from ``prepare``, all rows or those of a microbatch.
          key: a PRNG key.
        """

    # Evaluation

    @abc.abstractmethod
    def measure(
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> Any:
        """Return what one evaluation batch adds to the metrics, a pytree of arrays.

        Sums over its rows, usually; masked rows count nothing. Every process gets the whole of it.
        """

    def add(self, total: Any, part: Any) -> Any:
        """Return two results of ``measure`` as one: their sums, unless the task says otherwise.

        Args:
          total: of the batches before, NumPy arrays.
          part: of one more batch, NumPy arrays.
        """
        return jax.tree.map(np.add, total, part)

    @abc.abstractmethod
    def means(self, total: Any) -> dict[str, float]:
        """Return the metrics by name, from the results of all batches.

        Raises:
          ValueError: no example was counted.
        """

    def keep_predictions(
        self, total: Any, source: Examples, folder: Path
    ) -> Mapping[str, np.ndarray]:
        """Write what an evaluation predicted for other tools, and return pictures of it.

        Asked on the main process, after ``means``.

        Args:
          total: the results of all batches.
          source: the examples that they are about.
          folder: where files go; it need not be there.

        Returns:
          Pictures (H, W, 3) uint8 by name, such as predictions beside the truth.
        """
        del total, source, folder
        return {}

    def next_commands(self, workdir: str) -> Sequence[str]:
        """Return what a person may want to type once a run is over.

        Args:
          workdir: folder of the run.
        """
        return (
            f"lska-jax predict {workdir} IMAGE",
            f"for others: lska-jax publish {workdir} --out MODEL",
        )

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the metrics as the evaluation line shows them."""
        return ", ".join(f"{name} {value:.4g}" for name, value in means.items())
