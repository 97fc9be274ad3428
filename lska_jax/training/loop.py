"""The training loop, in the order in which things happen."""

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lska_jax import parallel
from lska_jax.data.loader import BrokenImages, HostBatch, eval_batches, train_batches
from lska_jax.data.sources import Source
from lska_jax.evaluation.metrics import EvalSums
from lska_jax.training import run as building
from lska_jax.training.checkpoint import Checkpointer, check_writable, tree_bytes
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.load_tree import CHECKPOINTS_FOLDER
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run
from lska_jax.training.start_up import StartUp
from lska_jax.training.state import TrainState, host_state, place_state

# Metrics are read this many steps late, so that reading them never leaves the device without work.
_STEPS_IN_FLIGHT = 2


class TrainingStopped(RuntimeError):
    """The run cannot go on; what it has is saved, and the message says what to do."""


def train(config: ConfigDict, *, workdir: str | Path) -> dict[str, float]:
    """Train to the end of the config's schedule, from where the workdir stands.

    Args:
      config: checked by ``lska_jax.config_check.check_config``.
      workdir: folder of the run; the same folder again resumes at its latest checkpoint.

    Returns:
      The last evaluation: "eval/top1", "eval/top5" in [0, 1] and "eval/loss".

    Raises:
      ValueError: the data or the devices do not fit the config.
      OSError: the workdir cannot be written or is too small.
      TrainingStopped: too many non-finite steps or broken images.
    """
    start_up = StartUp()
    start_up.mark("imports")
    workdir = Path(workdir)
    train_source, eval_source = building.open_sources(config)
    start_up.mark("data")
    run = building.build_run(config, num_train_examples=len(train_source))
    with Checkpointer(
        workdir / CHECKPOINTS_FOLDER,
        keep_latest=config.training.keep_latest,
        keep_best=config.training.keep_best,
    ) as checkpointer:
        # One more than are kept: an old step goes when the new one is complete.
        kept = config.training.keep_latest + config.training.keep_best + 1
        missing = max(1, kept - len(checkpointer.all_steps()))
        check_writable(workdir, bytes_needed=missing * tree_bytes(run.state))
        start_step = checkpointer.latest_intact_step() or 0
        with make_reporter(
            run, workdir, start_step=start_step, writers=config.training.writers
        ) as reporter:
            state, metadata = _restore_or_initialise(run, checkpointer, reporter)
            _save_config(config, workdir, reporter)
            if int(state.step) >= run.total_steps:
                reporter.message(f"The run in {workdir} is complete: {metadata['evaluation']}")
                return metadata["evaluation"]
            trainer = Trainer(run, train_source, eval_source, checkpointer, reporter)
            start_up.mark("model and state")
            trainer.prepare(int(state.step), mark=start_up.mark)
            reporter.message(f"Ready after {start_up.summary()}.")
            return trainer.fit(state)


class Trainer:
    """Drives the compiled steps of a run: batches in, reports and checkpoints out."""

    def __init__(
        self,
        run: Run,
        train_source: Source,
        eval_source: Source,
        checkpointer: Checkpointer,
        reporter: Reporter,
    ):
        self._run = run
        self._train_source = train_source
        self._checkpointer = checkpointer
        self._reporter = reporter
        self._evaluator = Evaluator(run, eval_source, reporter)
        self._transform = building.train_transform(run.config)
        self._broken = BrokenImages(train_source, self._transform, report=_reporting(reporter))
        self._broken_in_epoch = 0
        self._bad_steps = 0

    def prepare(self, first_step: int, *, mark: Callable[[str], None] = lambda part: None) -> None:
        """Start reading, then compile both steps; reading errors show before the compile.

        Args:
          first_step: how many steps are done.
          mark: called with the name of each part when it is over.
        """
        with self._reporter.progress("reading the first batch"):
            self._batches = self._device_batches(first_step)
            self._read_before = [next(self._batches)]
        mark("first batch")
        with self._reporter.progress("compiling the train step"):
            self._train_step = building.compile_train_step(self._run)
        mark("train step")
        self._evaluator.compile()
        mark("evaluation step")

    def fit(self, state: TrainState) -> dict[str, float]:
        """Train from the state's step to the end and return the last evaluation."""
        run = self._run
        steps = range(int(state.step) + 1, run.total_steps + 1)
        in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
        evaluation: dict[str, float] = {}
        with contextlib.closing(self._batches):
            for step, batch in zip(steps, self._each_batch(), strict=True):
                state, metrics = self._train_step(state, batch)
                in_flight.append((step, metrics))
                while len(in_flight) > _STEPS_IN_FLIGHT:
                    self._report(*in_flight.popleft())
                is_evaluated = self._is_evaluated(step)
                if is_evaluated or self._is_saved_between(step):
                    while in_flight:
                        self._report(*in_flight.popleft())
                    evaluation = self._evaluator.evaluate(state, step=step) if is_evaluated else {}
                    # Saves amid bad steps would push out the good ones.
                    if not self._bad_steps or step == run.total_steps:
                        self._save(step, state, evaluation)
        self._checkpointer.wait()
        self._reporter.message(
            f"Finished: top-1 {evaluation['eval/top1']:.2%}; "
            f"checkpoints in {os.path.relpath(self._checkpointer.directory)}"
        )
        return evaluation

    def _each_batch(self) -> Generator[dict[str, jax.Array], None, None]:
        # Popped, not kept: a batch held for the whole run would cost the devices its memory.
        yield self._read_before.pop()
        yield from self._batches

    def _is_evaluated(self, step: int) -> bool:
        epoch, step_of_epoch = divmod(step, self._run.steps_per_epoch)
        is_due = step_of_epoch == 0 and epoch % self._run.config.training.eval_every_epochs == 0
        return is_due or step == self._run.total_steps

    def _is_saved_between(self, step: int) -> bool:
        every = self._run.config.training.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _device_batches(self, first_step: int) -> Generator[dict[str, jax.Array], None, None]:
        config = self._run.config
        size = config.training.batch_size
        sharding = parallel.batch_sharding(self._run.mesh)
        batches = train_batches(
            self._train_source,
            self._transform,
            global_batch_size=size,
            seed=config.training.seed,
            rows=parallel.local_rows(sharding, size),
            start_step=first_step,
            stop_step=self._run.total_steps,
            num_workers=building.num_workers(config),
        )
        return _on_devices(batches, self._broken, sharding, global_batch_size=size)

    def _report(self, step: int, device_metrics: Mapping[str, jax.Array]) -> None:
        metrics = {name: float(value) for name, value in device_metrics.items()}
        bad_steps, broken = int(metrics.pop("bad_steps")), int(metrics.pop("broken"))
        self._reporter.train(step, metrics)
        self._check_bad_steps(step, bad_steps)
        self._check_broken(step, broken)

    def _check_bad_steps(self, step: int, bad_steps: int) -> None:
        self._bad_steps = bad_steps
        if not bad_steps:
            return
        limit = self._run.config.training.max_bad_steps
        self._reporter.message(
            f"Step {step}: loss or gradient not finite, update skipped ({bad_steps} in a row, "
            f"the run stops at {limit})"
        )
        if bad_steps < limit:
            return
        self._checkpointer.wait()
        latest = self._checkpointer.latest_step()
        good = "there is no checkpoint yet" if latest is None else f"step {latest} is kept"
        raise TrainingStopped(
            f"{bad_steps} steps in a row were not finite, up to step {step}. Of good checkpoints "
            f"in {self._checkpointer.directory}, {good}. Lower optimizer.learning_rate, set "
            "optimizer.clip_norm, or compute in float32 (model.dtype); then run the same command."
        )

    def _check_broken(self, step: int, broken: int) -> None:
        if (step - 1) % self._run.steps_per_epoch == 0:
            self._broken_in_epoch = 0
        self._broken_in_epoch += broken
        limit = self._run.config.data.max_broken_fraction * len(self._train_source)
        if self._broken_in_epoch > limit:
            raise TrainingStopped(
                _too_many_broken(self._broken_in_epoch, self._train_source, self._broken)
            )

    def _save(self, step: int, state: TrainState, evaluation: Mapping[str, float]) -> None:
        metadata = {
            "config": self._run.config.to_dict(),
            "evaluation": dict(evaluation),
            "steps_per_epoch": self._run.steps_per_epoch,
        }
        self._checkpointer.save(step, state, metadata=metadata, metric=evaluation.get("eval/top1"))


class Evaluator:
    """Evaluates states of a run on its evaluation split, every example exactly once."""

    def __init__(self, run: Run, source: Source, reporter: Reporter):
        self._run = run
        self._source = source
        self._reporter = reporter
        self._transform = building.eval_transform(run.config)
        self._broken = BrokenImages(source, self._transform, report=_reporting(reporter))

    def compile(self) -> None:
        """Compile the evaluation step, once."""
        with self._reporter.progress("compiling the evaluation step"):
            self._eval_step = building.compile_eval_step(self._run)

    def evaluate(self, state: TrainState, *, step: int) -> dict[str, float]:
        """Return and report top-1, top-5 and loss of the state's averaged or own parameters."""
        config = self._run.config
        size = config.training.eval_batch_size
        sharding = parallel.batch_sharding(self._run.mesh)
        batches = eval_batches(
            self._source,
            self._transform,
            global_batch_size=size,
            rows=parallel.local_rows(sharding, size),
            num_workers=building.num_workers(config),
        )
        params, stats = state.for_evaluation()
        in_flight: deque[EvalSums] = deque()
        total = EvalSums.zero()
        with self._reporter.progress("evaluating", -(-len(self._source) // size)) as progress:
            for batch in _on_devices(batches, self._broken, sharding, global_batch_size=size):
                in_flight.append(self._eval_step(params, stats, batch))
                if len(in_flight) > _STEPS_IN_FLIGHT:
                    total += jax.device_get(in_flight.popleft())
                progress.advance()
        for sums in in_flight:
            total += jax.device_get(sums)
        broken = len(self._source) - int(total.examples)
        if broken > config.data.max_broken_fraction * len(self._source):
            raise TrainingStopped(_too_many_broken(broken, self._source, self._broken))
        evaluation = {f"eval/{name}": value for name, value in total.means().items()}
        self._reporter.evaluation(step, evaluation)
        return evaluation


def make_reporter(run: Run, workdir: Path, *, start_step: int, writers: Sequence[str]) -> Reporter:
    """Return the reporter of a run; only the first process writes."""
    return Reporter(
        workdir,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        global_batch_size=run.config.training.batch_size,
        start_step=start_step,
        is_main=parallel.is_main_process(),
        log_every_steps=run.config.training.log_every_steps,
        writers=writers,
        run_name=workdir.name,
        config=run.config.to_dict(),
    )


def _restore_or_initialise(
    run: Run, checkpointer: Checkpointer, reporter: Reporter
) -> tuple[TrainState, dict[str, Any]]:
    if checkpointer.latest_step() is not None:
        state, metadata = checkpointer.restore(run.state)
        reporter.message(f"Resuming at step {int(state.step)} of {run.total_steps}.")
        return state, metadata
    # On the host: an accelerator would compile every draw, and FSDP may need its memory.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        model = building.build_model(run.config)
    finetune_from = run.config.training.finetune_from
    if finetune_from:
        reporter.message(load_for_finetuning(model, finetune_from))
    use_ema = run.config.training.ema_decay > 0
    state = place_state(host_state(model, run.optimizer, use_ema=use_ema), run.mesh)
    count = sum(int(np.prod(x.shape)) for x in state.params.values())
    reporter.message(
        f"Training {run.config.model.name} (k={run.config.model.k}, {count:,} parameters) for "
        f"{run.total_steps:,} steps of {run.config.training.batch_size} images on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)."
    )
    return state, {}


def _on_devices(
    batches: Generator[HostBatch, None, None],
    broken: BrokenImages,
    sharding: jax.sharding.NamedSharding,
    *,
    global_batch_size: int,
) -> Generator[dict[str, jax.Array], None, None]:
    with contextlib.closing(batches):
        for batch in batches:
            broken.note(batch)
            arrays = {name: batch[name] for name in ("image", "label", "mask")}  # type: ignore[literal-required]
            yield parallel.to_global(arrays, sharding, global_batch_size=global_batch_size)


def _reporting(reporter: Reporter) -> Any:
    """Return how this process tells of a broken image: only the first one owns the log."""
    if parallel.is_main_process():
        return reporter.message
    return lambda text: print(f"[process {jax.process_index()}] {text}", file=sys.stderr)


def _too_many_broken(count: int, source: Source, broken: BrokenImages) -> str:
    return (
        f"{count} of {len(source)} images of {source.name} are broken, more than "
        f"data.max_broken_fraction allows. Repair or remove them, or raise the fraction. "
        f"Met by process {jax.process_index()}:\n{broken.listing()}"
    )


def _save_config(config: ConfigDict, workdir: Path, reporter: Reporter) -> None:
    """Keep the resolved config beside the run, and tell what changed since the last start."""
    if not parallel.is_main_process():
        return
    path = workdir / "config.json"
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    if path.exists():
        before, now = json.loads(path.read_text()), json.loads(text)
        for group, values in now.items():
            for name, value in values.items():
                old = before.get(group, {}).get(name)
                if old != value:
                    reporter.message(
                        f"Config changed since the last start: {group}.{name}: {old} -> {value}"
                    )
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(text)
    temporary.replace(path)
