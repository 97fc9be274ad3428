"""One training step and one evaluation step, as pure functions to be jitted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.task import Batch, Task
from lska_jax.training.optimizer import EVERYTHING
from lska_jax.training.schedules import Schedule
from lska_jax.training.state import TrainState
from lska_jax.training.tuning import Tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What a step of any task does.

    Attributes:
      gradient_accumulation: microbatches that a batch is split into.
      ema_decay: of the averaged parameters and statistics; 0 keeps none.
      ema_warmup: whether the decay of step t, counted from 0, is at most (1 + t) / (10 + t), as of
        TensorFlow's ExponentialMovingAverage; a short run's average does not hold its start then.
      seed: of the run; keys are derived from it and the step.
      tuning: which parameters are trained, and how.
    """

    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    ema_warmup: bool = False
    seed: int = 0
    tuning: Tuning = EVERYTHING


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    functions: ModelFunctions,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Schedule,
    spec: StepSpec,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one optimizer step; a step whose loss or gradient is not finite changes nothing.

    Args:
      state: the run's state; donate it.
      batch: the task's fields, each (B, ...), and mask (B,) bool.
      task: prepares the batch and has its loss.
      functions: the model.
      optimizer: from ``make_optimizer``.
      schedule: learning rate by step.
      spec: what to do.

    Returns:
      The new state and scalar metrics: loss, learning_rate, gradient_norm, bad_steps (non-finite
      steps in a row), broken (masked examples in the batch).
    """
    key = jax.random.fold_in(jax.random.key(spec.seed), state.step)
    examples, key = task.prepare(batch, key)
    tuning = spec.tuning
    trained = tuning.trained(state.params)

    def loss_of(params: FlatArrays, *others: Any) -> tuple[jax.Array, FlatArrays]:
        return task.loss(functions, {**state.params, **params}, *others)

    loss, gradients, stats = _gradients(
        trained,
        state.batch_stats,
        examples,
        key,
        loss_of=loss_of,
        parts=spec.gradient_accumulation,
    )
    for path, start in tuning.starts.items():
        gradients[path] = jnp.where(state.step >= start, gradients[path], 0.0)
    gradient_norm = optax.tree.norm(gradients)
    is_good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

    updates, opt_state = optimizer.update(gradients, state.opt_state, trained, step=state.step)
    learning_rate = schedule(state.step)
    params = {**state.params}
    for path, update in updates.items():
        scale = tuning.scales.get(path, 1.0)
        params[path] += (learning_rate if scale == 1.0 else scale * learning_rate) * update
    proposed = (params, stats, opt_state, _average(state, params, stats, spec))
    current = (state.params, state.batch_stats, state.opt_state, state.ema)
    params, stats, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(is_good, new, old), proposed, current
    )
    bad_steps = jnp.where(is_good, 0, state.bad_steps + 1)
    metrics = {
        "loss": loss,
        "learning_rate": learning_rate,
        "gradient_norm": gradient_norm,
        "bad_steps": bad_steps,
        "broken": jnp.sum(~batch["mask"], dtype=jnp.int32),
    }
    return TrainState(state.step + 1, params, stats, opt_state, ema, bad_steps), metrics


def eval_step(
    params: FlatArrays,
    stats: FlatArrays,
    batch: Batch,
    *,
    task: Task,
    functions: ModelFunctions,
) -> tuple[jax.Array, Any]:
    """Return how many rows of an evaluation batch count, () int32, and what the task measures."""
    counted = jnp.sum(batch["mask"], dtype=jnp.int32)
    return counted, task.measure(functions, params, stats, batch)


def _gradients(
    params: FlatArrays,
    stats: FlatArrays,
    examples: Any,
    key: jax.Array,
    *,
    loss_of: Callable[..., tuple[jax.Array, FlatArrays]],
    parts: int,
) -> tuple[jax.Array, FlatArrays, FlatArrays]:
    """Return loss, gradients and statistics, over microbatches where asked."""
    value_and_gradient = jax.value_and_grad(loss_of, has_aux=True)
    if parts == 1:
        (loss, stats), gradients = value_and_gradient(params, stats, examples, key)
        return loss, gradients, stats

    def accumulate(carry: Any, numbered_part: Any) -> tuple[Any, None]:
        loss, gradients, stats = carry
        number, part = numbered_part
        (part_loss, stats), part_gradients = value_and_gradient(
            params, stats, part, jax.random.fold_in(key, number)
        )
        gradients = jax.tree.map(jnp.add, gradients, part_gradients)
        return (loss + part_loss, gradients, stats), None

    # Every device's rows are dealt out over the microbatches: nothing moves between devices.
    dealt = jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1), examples
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    start = (jnp.zeros((), jnp.float32), zeros, stats)
    (loss, gradients, stats), _ = jax.lax.scan(accumulate, start, (jnp.arange(parts), dealt))
    return loss, gradients, stats


def _average(
    state: TrainState, params: FlatArrays, stats: FlatArrays, spec: StepSpec
) -> dict[str, FlatArrays]:
    if not state.ema:
        return {}
    decay: float | jax.Array = spec.ema_decay
    if spec.ema_warmup:
        steps = state.step.astype(jnp.float32)
        decay = jnp.minimum(decay, (1.0 + steps) / (10.0 + steps))
    # An average of equal numbers would drift by its rounding.
    frozen = spec.tuning.frozen | spec.tuning.frozen_statistics
    return {
        name: {
            path: old if path in frozen else decay * old + (1.0 - decay) * current[path]
            for path, old in state.ema[name].items()
        }
        for name, current in (("params", params), ("batch_stats", stats))
    }
