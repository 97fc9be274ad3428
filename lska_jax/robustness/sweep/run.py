"""Measure models on corrupted and shifted image sets, cell by cell, into one results file.

A cell is read and, where asked, corrupted once for all models that want the same pixels. Each cell
and model is one line of the file, written when it is done: a sweep that was stopped in any way goes
on where it was.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lska_jax.data.augment import EvalTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import (
    BrokenImages,
    ExampleError,
    HostBatch,
    default_num_workers,
    eval_batches,
)
from lska_jax.models.table import Preprocessing
from lska_jax.robustness.cells import Cell, CellResult, Hole, Outcomes, Summary
from lska_jax.robustness.scores.scorer import ClassSubset
from lska_jax.robustness.sets.catalogue import class_subsets, find_scorer
from lska_jax.robustness.sets.opening import CellData
from lska_jax.robustness.sweep.classifier import (
    Classifier,
    Model,
    as_classifiers,
    describe_transform,
)
from lska_jax.robustness.sweep.display import SweepDisplay
from lska_jax.robustness.sweep.generation import Generator
from lska_jax.robustness.sweep.outcomes import OutcomeFunction, collect
from lska_jax.robustness.sweep.plan import (
    PlannedCell,
    SweepOptions,
    cell_transform,
    groups_of,
    limited,
    plan_cells,
)
from lska_jax.robustness.sweep.results_file import ResultsFile, ResultsNotWritten
from lska_jax.robustness.sweep.samples import SHEET_NAME, Samples
from lska_jax.robustness.sweep.seen_images import check_labels, facts_of, join_rows, order_by_name
from lska_jax.robustness.sweep.stand_ins import with_drawings
from lska_jax.robustness.sweep.summary import summarise
from lska_jax.running import parallel
from lska_jax.running.agreed_stop import AgreedStop
from lska_jax.running.stop_signals import StopRequested, StopSignals

RESULTS_NAME = "results.jsonl"
SAMPLES_NAME = "samples"
_BATCHES_IN_FLIGHT = 2
# Of decoded images that are corrupted again and again: 27,000 of 224 px.
_MAX_KEPT_BYTES = 4 * 2**30


def evaluate(
    models: Model | Sequence[Model] | Mapping[str, Model],
    *,
    out: str | Path,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> list[Summary]:
    """Measure models on the sets of a suite, and resume what an earlier call began.

    Args:
      models: one, several, or several by name. A model is a folder, Hub id or run; an
        ``nnx.Module``; any JAX function from normalised images (B, S, S, 3) float32 to logits
        (B, K); or a ``Classifier``, which ``wrap_function`` makes of a function with parameters.
      out: folder of the results file; a call with the same options goes on there, with the same
        models or with others.
      preprocessing: of the images of modules and functions; None takes that of the
        module, or ``Preprocessing()`` where it has none.
      class_names: of the logits of modules and functions; None are ImageNet's 1,000.
      **options: fields of ``SweepOptions``, such as ``suite="imagenet_a,imagenet_r"`` and
        ``data_root="data"``.

    Returns:
      One summary a model, in the order given; missing sets are holes in it.

    Raises:
      ValueError: options, models and sets do not fit each other, the results file is of other
        options, or another sweep appends to it.
      FileNotFoundError: there is no such model, or no folder of frost pictures.
      TypeError: an option that ``SweepOptions`` does not have, or something that is no model.
      ExampleError: an image can neither be read nor be declared broken.
    """
    chosen = as_classifiers(models, preprocessing=preprocessing, class_names=class_names)
    return sweep(chosen, SweepOptions(**options), out=out)


def sweep(
    chosen: Sequence[Classifier],
    options: SweepOptions,
    *,
    out: str | Path,
    signals: StopSignals | None = None,
) -> list[Summary]:
    """Measure classifiers; see ``evaluate``.

    Args:
      chosen: the models.
      options: what to measure; see also ``stand_ins.with_drawings``.
      out: folder of the results file.
      signals: requests to stop, of a program that listens to them; None is never asked.

    Raises:
      ResultsNotWritten: the disk is full, for example.
      StopRequested: a signal asked for it; every cell done is in the file.
    """
    _check_names(chosen)
    options = with_drawings(options, chosen)
    plan = plan_cells(options, chosen)
    path = Path(out) / RESULTS_NAME
    # Before anything is written: a mistake in it must not claim the folder.
    generator = Generator(options.frost_pictures, seed=options.seed)
    is_main = parallel.is_main_process()
    with ResultsFile(path, options.settings(), is_writer=is_main) as file:
        file.add_plan([planned.cell for planned in plan])
        for classifier in chosen:
            file.add_model(classifier.stamp)
        done = {*file.results.cells}
        pending = [
            (planned, [c for c in chosen if (c.stamp.name, planned.cell) not in done])
            for planned in plan
        ]
        pending = [(planned, lacking) for planned, lacking in pending if lacking]
        with SweepDisplay(len(plan), len(plan) - len(pending), is_main=is_main) as display:
            samples = Samples(path.parent / SAMPLES_NAME)
            batch_size = min(options.batch_size, _most_images(plan, options) or options.batch_size)
            measuring = _Sweep(
                options, file, display, samples, generator, signals or StopSignals(), batch_size
            )
            for planned, lacking in pending:
                measuring.measure(planned, lacking)
                display.end()
            if is_main:
                samples.write_sheet(path.parent / SHEET_NAME)
        summaries = {one.model.name: one for one in summarise(file.results, where=path)}
    return [summaries[classifier.stamp.name] for classifier in chosen]


class _Sweep:
    """The parts that cells share: mesh, compiled models, the generator."""

    def __init__(
        self,
        options: SweepOptions,
        file: ResultsFile,
        display: SweepDisplay,
        samples: Samples,
        generator: Generator,
        signals: StopSignals,
        batch_size: int,
    ):
        self._options = options
        self._samples = samples
        self._file = file
        self._display = display
        self._mesh = parallel.make_mesh()
        self._sharding = parallel.batch_sharding(self._mesh)
        self._stop = AgreedStop(signals, self._mesh)
        self._functions: dict[str, OutcomeFunction] = {}
        self._kept: tuple[tuple[str, EvalTransform], list[HostBatch]] | None = None
        self._generator = generator
        devices = jax.device_count()
        # Every device gets as many rows.
        self._batch_size = -(-batch_size // devices) * devices
        workers = options.num_workers
        self._num_workers = default_num_workers() if workers < 0 else workers
        # Every process scores every image, whoever decoded it.
        self._everywhere = jax.jit(
            lambda facts: facts, out_shardings=parallel.replicated(self._mesh)
        )

    def measure(self, planned: PlannedCell, models: Sequence[Classifier]) -> None:
        """Measure one cell for the models that lack it; data that cannot be read become a hole."""
        self._display.begin(planned.cell)
        try:
            data, positions = limited(planned.open(), self._options)
        except (ValueError, OSError) as problem:
            self._record_hole(planned.cell, " ".join(str(problem).split()))
            return
        by_transform: dict[EvalTransform, list[Classifier]] = {}
        for classifier in models:
            transform = cell_transform(planned, classifier, self._options)
            by_transform.setdefault(transform, []).append(classifier)
        for transform, sharing in by_transform.items():
            for classifier in sharing:
                self._function(classifier)
            try:
                self._measure_sharing(planned, data, positions, transform, sharing)
            except ResultsNotWritten:
                raise
            except (ValueError, OSError, ExampleError) as problem:
                # Of several processes the others would wait for this one.
                if jax.process_count() > 1:
                    raise
                self._record_hole(planned.cell, " ".join(str(problem).split()))

    def _measure_sharing(
        self,
        planned: PlannedCell,
        data: CellData,
        positions: np.ndarray,
        transform: EvalTransform,
        models: Sequence[Classifier],
    ) -> None:
        """Measure one cell for models that want the same pixels."""
        functions = [self._function(classifier) for classifier in models]
        started = time.monotonic()
        rows: list[dict[str, jax.Array]] = []
        outcomes: list[list[Outcomes]] = [[] for _ in models]
        for images, facts in self._device_batches(planned, data, positions, transform):
            if self._stop.is_agreed():
                raise StopRequested
            if planned.corruption:
                clean = images
                images = self._generator(clean, *planned.corruption, positions=facts["position"])
                if not rows and parallel.is_main_process():
                    self._add_sample(planned.cell, clean, images)
            for function, of_model in zip(functions, outcomes, strict=True):
                of_model.append(function(images, facts["label"]))
            rows.append(self._everywhere(facts))
            if len(rows) > _BATCHES_IN_FLIGHT:
                jax.block_until_ready(outcomes[-1][-1 - _BATCHES_IN_FLIGHT])
            self._display.advance(len(rows) * self._batch_size / len(data.source))
        seen = join_rows(rows)
        if not seen.labels.size:
            raise ValueError(f"none of the images of {data.origin} can be read")
        order, names = order_by_name(data, seen.indices)
        extra = {name: array[seen.indices][order] for name, array in facts_of(data).items()}
        for classifier, of_model in zip(models, outcomes, strict=True):
            scored = find_scorer(planned.cell.set).score_cell(
                planned.cell,
                Outcomes(*(part[order] for part in collect(of_model, seen.is_counted))),
                labels=seen.labels[order],
                extra=extra,
                shapes=groups_of(classifier).names,
                subsets=_subsets_of(classifier),
            )
            result = CellResult(
                model=classifier.stamp.name,
                cell=planned.cell,
                provenance="generated" if planned.corruption else data.provenance,
                origin=data.origin,
                preprocessing=describe_transform(transform),
                num_images=len(seen.labels),
                num_broken=seen.num_broken,
                note="; ".join(self._notes(planned, data)),
                scores=scored.scores,
                outcomes=scored.outcomes | ({"images": names} if scored.outcomes else {}),
                seconds=(time.monotonic() - started) / len(models),
            )
            self._file.add_result(result)
            self._display.result(result)

    def _add_sample(self, cell: Cell, clean: jax.Array, images: jax.Array) -> None:
        try:
            self._samples.add(cell, clean, images)
        except OSError as error:
            # Data that cannot be read are an OSError too, and become a hole.
            raise ResultsNotWritten(
                error.errno,
                f"cannot write samples beside {self._file.path} ({error.strerror}); make room, "
                "then run the same command again",
            ) from error

    def _notes(self, planned: PlannedCell, data: CellData) -> list[str]:
        notes = [data.note]
        if planned.corruption:
            notes.append(self._generator.note(planned.corruption[0]))
        if self._options.limit:
            notes.append(f"--limit {self._options.limit}")
        return [note for note in notes if note]

    def _record_hole(self, cell: Cell, reason: str) -> None:
        self._file.add_hole(Hole(cell, reason))
        self._display.hole(cell, reason)

    def _function(self, classifier: Classifier) -> OutcomeFunction:
        name = classifier.stamp.name
        if name not in self._functions:
            self._display.message(f"compiling {name} ...")
            self._functions[name] = OutcomeFunction(
                classifier,
                mesh=self._mesh,
                batch_size=self._batch_size,
                subsets=[subset.classes for subset in _subsets_of(classifier)],
                groups=groups_of(classifier).classes,
            )
        return self._functions[name]

    def _device_batches(
        self, planned: PlannedCell, data: CellData, positions: np.ndarray, transform: EvalTransform
    ) -> Iterator[tuple[jax.Array, dict[str, jax.Array]]]:
        """Yield images (B, S, S, 3) uint8, and label, mask, index and position of each row."""
        for batch in self._host_batches(data, transform, is_reused=planned.corruption is not None):
            check_labels(batch, data)
            arrays = {
                "image": batch["image"],
                "label": batch["label"],
                "mask": batch["mask"],
                "index": batch["index"].astype(np.int32),
                "position": positions[np.maximum(batch["index"], 0)].astype(np.int32),
            }
            placed = parallel.to_global(arrays, self._sharding, global_batch_size=self._batch_size)
            yield placed.pop("image"), placed

    def _host_batches(
        self, data: CellData, transform: EvalTransform, *, is_reused: bool
    ) -> Iterator[HostBatch]:
        """Yield decoded batches; those that every corruption starts from are kept if they fit."""
        images = (data.source.name, transform)
        if self._kept is not None and self._kept[0] == images:
            yield from self._kept[1]
            return
        read = LabelledImages(transform)
        broken = BrokenImages(data.source, read, report=self._display.message)
        batches = eval_batches(
            data.source,
            read,
            global_batch_size=self._batch_size,
            rows=parallel.local_rows(self._sharding, self._batch_size),
            num_workers=self._num_workers,
        )
        num_bytes = len(data.source) * transform.image_size**2 * 3 // jax.process_count()
        is_kept = is_reused and num_bytes <= _MAX_KEPT_BYTES
        kept = []
        with contextlib.closing(batches):
            for batch in batches:
                broken.note(batch)
                if is_kept:
                    kept.append(batch)
                yield batch
        if is_kept:
            self._kept = (images, kept)


def _most_images(plan: Sequence[PlannedCell], options: SweepOptions) -> int | None:
    """Return how many images a cell can have, or None where only opening all of them tells.

    A batch of more would be filled up, and every corruption and model computed for nothing.
    """
    if options.limit:
        return options.limit
    openers = {planned.open for planned in plan}
    if len(openers) != 1:
        return None
    try:
        # The clean images alone, and what is made of them.
        return len(openers.pop()().source)
    except (ValueError, OSError):
        return None  # the hole of every cell


def _subsets_of(classifier: Classifier) -> tuple[ClassSubset, ...]:
    return class_subsets() if classifier.is_imagenet else ()


def _check_names(classifiers: Sequence[Classifier]) -> None:
    names = [classifier.stamp.name for classifier in classifiers]
    if not names:
        raise ValueError("No model to measure; give at least one.")
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(
            f"Two models are called {', '.join(double)}; name them apart: "
            'evaluate({"first": ..., "second": ...}), or --model first=... --model second=....'
        )
