"""A range test of the learning rate (arXiv 1506.01186, section 3.3): which rates train at all.

The rate grows from step to step by a constant factor, from far too low to far too high, and the
loss is noted. What is suggested is a tenth of the rate at which the smoothed loss is lowest: there
it still falls, and has not begun to swing.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lska_jax.running import parallel
from lska_jax.running.stop_signals import StopSignals
from lska_jax.training import run as building
from lska_jax.training.feeding import Feed, Oversight
from lska_jax.training.loop import initial_state, make_reporter
from lska_jax.training.schedules import Schedule
from lska_jax.training.teaching import prepare_task

# Of the loss's average over steps, as fastai's finder has it.
_SMOOTHING = 0.98
_HOPELESS = 4.0
_BELOW_THE_LOWEST = 10.0


class FoundRate(NamedTuple):
    """What a range test saw.

    Attributes:
      rates: of each step, growing.
      losses: of each step.
      smoothed: their average over the steps before.
      lowest: the rate at which that is lowest.
      suggested: a tenth of it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    suggested: float


def growing_rate(*, low: float, high: float, steps: int) -> Schedule:
    """Return low * (high / low) ** (step / (steps - 1))."""

    def schedule(step: jax.Array | int) -> jax.Array:
        share = jnp.asarray(step, jnp.float32) / max(steps - 1, 1)
        return jnp.exp(math.log(low) + share * (math.log(high) - math.log(low)))

    return schedule


def choose_rate(rates: list[float], losses: list[float]) -> FoundRate:
    """Return what some steps say of the rate.

    Raises:
      ValueError: no step has a finite loss.
    """
    smoothed: list[float] = []
    average = 0.0
    for n, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed.append(average / (1 - _SMOOTHING**n))
        if smoothed[-1] > _HOPELESS * min(smoothed):
            break
    if not smoothed:
        raise ValueError(
            f"The loss of the first step is {losses[0]}, at a rate of {rates[0]:g}: something "
            "other than the rate is wrong."
        )
    count = len(smoothed)
    lowest = rates[min(range(count), key=smoothed.__getitem__)]
    return FoundRate(
        tuple(rates[:count]),
        tuple(losses[:count]),
        tuple(smoothed),
        lowest,
        lowest / _BELOW_THE_LOWEST,
    )


def find_rate(
    config: ConfigDict, *, out: str | Path, low: float = 1e-7, high: float = 1.0, steps: int = 100
) -> FoundRate:
    """Train some steps at growing rates; nothing of what is trained is kept.

    Args:
      config: checked by ``config_check.check_config``; its schedule is not used.
      out: folder for the log, ``rates.csv`` and ``rates.png``.
      low: the first rate.
      high: the last one; the test ends before where the loss has grown to four times its least.
      steps: how many.
    """
    config = config.copy_and_resolve_references().unlock()
    # What starts late would not be tried at all.
    config.training.update({"unfreeze_every_epochs": 0, "ema_decay": 0.0})
    sources = building.open_sources(building.build_task(config))
    run = building.build_run(config, num_train_examples=len(sources.train))
    schedule = growing_rate(low=low, high=high, steps=steps)
    run = dataclasses.replace(run, schedule=schedule, total_steps=steps)
    rates, losses = [], []
    with make_reporter(run, Path(out), start_step=0, writers=()) as reporter:
        state = initial_state(run, sources, reporter)
        signals = StopSignals()
        oversight = Oversight(
            signals, run.mesh, stall_seconds=config.training.stall_seconds, reporter=reporter
        )
        constants = prepare_task(run, sources)
        feed = Feed(
            sources.train,
            run.task.train_reader(),
            oversight=oversight,
            reporter=reporter,
            is_training=True,
        )
        size, sharding = config.training.batch_size, parallel.batch_sharding(run.mesh)
        batches = run.task.train_batches(
            feed.source,
            global_batch_size=size,
            seed=config.training.seed,
            rows=parallel.local_rows(sharding, size),
            stop_step=steps,
            num_workers=building.num_workers(config),
            reading=feed.reading,
        )
        step = building.train_programs(run)
        with reporter.progress("compiling the train step"):
            step.compile()
        placed = feed.batches(batches, sharding, global_batch_size=size, name="training")
        with reporter.progress("trying rates", steps) as progress, contextlib.closing(placed):
            for batch in placed:
                state, metrics = step(state, {**batch, **constants})
                rates.append(float(metrics["learning_rate"]))
                losses.append(float(metrics["loss"]))
                if not math.isfinite(losses[-1]) or losses[-1] > 2 * _HOPELESS * min(losses):
                    break
                progress.advance()
    found = choose_rate(rates, losses)
    if parallel.is_main_process():
        _write(found, Path(out))
    return found


def _write(found: FoundRate, out: Path) -> None:
    with (out / "rates.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["learning_rate", "loss", "smoothed_loss"])
        writer.writerows(zip(found.rates, found.losses, found.smoothed, strict=True))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color="#BBBBBB", label="each step")
    axes.plot(found.rates, found.smoothed, color="#0072B2", label="smoothed")
    axes.axvline(found.suggested, color="#D55E00", label=f"suggested: {found.suggested:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    figure.savefig(out / "rates.png", dpi=150)
