"""Models that a task judges on corrupted validation images, into the same results file.

Segmentors, detectors, and classifiers of any number of labels an image.

Images are resized and put on their canvas as in any evaluation, and corrupted there, on the device;
labels stay as they are. What lies beyond an image repeats its edge while it is corrupted, so that
blurs do not mix the padding in, and is zero again for the network.

This differs from sets that are corrupted at the size at which they are stored, such as COCO-C
(Michaelis et al. 2019, arXiv 1907.07484): numbers are comparable with each other only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from lska_jax.data.loader import HostBatch, default_num_workers
from lska_jax.data.opening import open_source
from lska_jax.data.opening_label_maps import open_label_maps
from lska_jax.data.opening_objects import open_objects
from lska_jax.robustness.cells import Cell, CellResult, Hole, Score, Summary
from lska_jax.robustness.scores.dense_scorer import DENSE_SETS
from lska_jax.robustness.sets.catalogue import find_set, parse_suite
from lska_jax.robustness.sets.opening import CellData
from lska_jax.robustness.sweep.dense_models import MULTI_LABEL, DenseModel
from lska_jax.robustness.sweep.display import SweepDisplay
from lska_jax.robustness.sweep.generation import Generator
from lska_jax.robustness.sweep.plan import SweepOptions, limited
from lska_jax.robustness.sweep.results_file import ResultsFile
from lska_jax.robustness.sweep.scene_subset import SceneSubset
from lska_jax.robustness.sweep.summary import summarise
from lska_jax.running.inline_dispatch import wait_on_cpu
from lska_jax.running.stop_signals import StopRequested, StopSignals
from lska_jax.tasks.class_order import in_order

RESULTS_NAME = "results.jsonl"
# Metrics of the tasks, and what they are called here.
_METRICS = {
    "mIoU": "miou",
    "mAcc": "macc",
    "aAcc": "aacc",
    "box_AP": "box_ap",
    "box_AP50": "box_ap50",
    "mask_AP": "mask_ap",
    "mask_AP50": "mask_ap50",
    "mean_average_precision": "map",
}


def dense_sweep(
    models: Sequence[DenseModel],
    options: SweepOptions,
    *,
    out: str | Path,
    signals: StopSignals | None = None,
) -> list[Summary]:
    """Measure segmentors, detectors or classifiers of several labels, and resume an earlier call.

    Args:
      models: of one task and of the same classes.
      options: ``clean`` names the validation images; ``suite`` is "imagenet" for them as they are
        and "imagenet_c", or parts of it, for their corruptions; others of it are not for them.
      out: folder of the results file.
      signals: requests to stop, of a program that listens to them; None is never asked.

    Returns:
      One summary a model, in the order given.

    Raises:
      ValueError: options, models and images do not fit each other.
      StopRequested: a signal asked for it; every cell done is in the file.
    """
    cells = _plan(models, options)
    source = _open(models[0], options)
    generator = Generator(options.frost_pictures, seed=options.seed)
    path = Path(out) / RESULTS_NAME
    with ResultsFile(path, options.settings(), is_writer=True) as file:
        file.add_plan(list(cells))
        for model in models:
            file.add_model(model.stamp)
        done = {*file.results.cells}
        pending = [
            (cell, [m for m in models if (m.stamp.name, cell) not in done]) for cell in cells
        ]
        pending = [(cell, lacking) for cell, lacking in pending if lacking]
        with SweepDisplay(len(cells), len(cells) - len(pending)) as display:
            judges = {
                model.stamp.name: _Judge(model, source, options, generator, display)
                for model in models
            }
            for cell, lacking in pending:
                display.begin(cell)
                for model in lacking:
                    if signals is not None and signals.is_requested:
                        raise StopRequested
                    try:
                        result = judges[model.stamp.name].judge(cell, cells[cell])
                    except ValueError as problem:
                        reason = " ".join(str(problem).split())
                        file.add_hole(Hole(cell, reason))
                        display.hole(cell, reason)
                        continue
                    file.add_result(result)
                    display.result(result)
                display.end()
        summaries = {one.model.name: one for one in summarise(file.results, where=path)}
    return [summaries[model.stamp.name] for model in models]


class _Judge:
    """One model on one set, with its compiled evaluation."""

    def __init__(
        self,
        model: DenseModel,
        source: Any,
        options: SweepOptions,
        generator: Generator,
        display: SweepDisplay,
    ) -> None:
        self._model, self._source = model, source
        self._options, self._generator, self._display = options, generator, display
        self._task = model.build_task(getattr(source, "sizes", None))
        self._measure = jax.jit(
            lambda params, stats, batch: self._task.measure(model.functions, params, stats, batch)
        )

    def judge(self, cell: Cell, corruption: tuple[str, int] | None) -> CellResult:
        """Return a cell's result.

        Args:
          cell: which.
          corruption: name and severity, or None for the images as they are.

        Raises:
          ValueError: no image can be read.
        """
        started = time.monotonic()
        total: Any = None
        counted = 0
        for batch in self._batches():
            arrays = wait_on_cpu(
                {name: jnp.asarray(a) for name, a in batch.items() if name != "index"}
            )
            if corruption:
                # Images of one size have no padding, and their place in the set is the loader's.
                index = jnp.asarray(np.maximum(batch["index"], 0), jnp.int32)
                positions = arrays.get("position", index)
                images = arrays["image"]
                if "size" in arrays:
                    images = repeat_edges(images, arrays["size"])
                arrays["image"] = self._generator(images, *corruption, positions=positions)
            part = jax.device_get(self._measure(self._model.params, self._model.stats, arrays))
            total = part if total is None else self._task.add(total, part)
            counted += int(batch["mask"].sum())
            self._display.advance(counted / len(self._source))
        if not counted:
            raise ValueError(f"none of the images of {self._source.name} can be read")
        means = self._task.means(total)
        notes = [self._generator.note(corruption[0])] if corruption else []
        notes += [f"--limit {self._options.limit}"] if self._options.limit else []
        return CellResult(
            model=self._model.stamp.name,
            cell=cell,
            provenance="generated" if corruption else "own",
            origin=self._source.name,
            preprocessing=self._model.stamp.preprocessing,
            num_images=counted,
            num_broken=len(self._source) - counted,
            note="; ".join(filter(None, notes)),
            scores={
                _METRICS[name]: Score(value if np.isfinite(value) and value >= 0 else None)
                for name, value in means.items()
                if name in _METRICS
            },
            seconds=time.monotonic() - started,
        )

    def _batches(self) -> Iterator[HostBatch]:
        workers = self._options.num_workers
        batches: Iterator[HostBatch] = self._task.eval_batches(
            self._source,
            global_batch_size=self._options.batch_size,
            num_workers=default_num_workers() if workers < 0 else workers,
        )
        return batches


@jax.jit
def repeat_edges(
    images: UInt8[Array, "batch height width 3"], sizes: Int[Array, "batch 2"]
) -> UInt8[Array, "batch height width 3"]:
    """Return padded images whose padding repeats the last row and column of what is inside.

    Args:
      images: with what is inside in the upper left corner.
      sizes: (B, 2) its height and width.
    """
    rows = jnp.minimum(jnp.arange(images.shape[1])[None], sizes[:, :1] - 1)
    columns = jnp.minimum(jnp.arange(images.shape[2])[None], sizes[:, 1:] - 1)
    return jax.vmap(lambda image, row, column: image[row][:, column])(images, rows, columns)


def _plan(
    models: Sequence[DenseModel], options: SweepOptions
) -> Mapping[Cell, tuple[str, int] | None]:
    """Return the cells to measure, each with its corruption."""
    first = models[0]
    names = [model.stamp.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"Two models have one name among {', '.join(names)}; name them apart.")
    for other in models[1:]:
        if (other.task_name, other.class_names) != (first.task_name, first.class_names):
            raise ValueError(
                f"{first.stamp.name} and {other.stamp.name} are for different tasks or classes; "
                "one sweep compares models of the same."
            )
    if not options.clean:
        example = "csv:PATH" if first.task_name == MULTI_LABEL else "coco:PATH"
        raise ValueError(f"Name the validation images, for example --clean {example}.")
    if jax.process_count() > 1:
        raise ValueError(f"{first.stamp.name} is measured by one process; start one.")
    clean, corrupted, _ = DENSE_SETS[first.task_name]
    cells: dict[Cell, tuple[str, int] | None] = {}
    for cell in parse_suite(str(options.suite)):
        image_set = find_set(cell.set)
        if image_set.is_clean:
            cells[Cell(clean)] = None
        elif image_set.can_be_generated and options.generate:
            cells[cell._replace(set=corrupted)] = (cell.part, cell.severity)
        else:
            raise ValueError(
                f"{cell.set} cannot be measured for {first.stamp.name}. Give --generate --suite "
                "imagenet,imagenet_c, or some of it: the images as they are, and their corruptions."
            )
    return cells


def _open(model: DenseModel, options: SweepOptions) -> Any:
    """Open the validation images, whose classes are the model's."""
    source: Any
    if model.task_name == MULTI_LABEL:
        source = open_source(
            options.clean,
            split=options.clean_split,
            data_dir=options.data_root,
            is_multi_label=True,
        )
        advice = "Give the images that the model's labels belong to with --clean."
        source = in_order(source, model.class_names, whose="the model", advice=advice)
        data = CellData(source=source, provenance="own", origin=source.name, extra={})
        return limited(data, options)[0].source
    if model.task_name == "detection":
        source = open_objects(options.clean, split=options.clean_split)
    else:
        count = len(model.class_names)
        source = open_label_maps(options.clean, split=options.clean_split, num_classes=count)
    names = tuple(source.class_names)
    if len(names) != len(model.class_names):
        raise ValueError(
            f"{source.name} has {len(names)} classes, and {model.stamp.name} "
            f"{len(model.class_names)}."
        )
    if options.limit and options.limit < len(source):
        rng = np.random.default_rng(options.seed)
        kept = np.sort(rng.permutation(len(source))[: options.limit])
        return SceneSubset(source, kept)
    return source
