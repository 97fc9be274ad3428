"""One training step and one evaluation step, as pure functions to be jitted."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lska_jax.data.mixing import MixingSpec, mix, normalise, random_erasing
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.accuracy import EvalSums, eval_sums
from lska_jax.training.optimizer import Schedule
from lska_jax.training.state import TrainState

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What a step does to its batch and its state.

    Attributes:
      num_classes: size of the logits.
      mean: of each channel, for pixels in [0, 1].
      std: of each channel, for pixels in [0, 1].
      mixing: Mixup, CutMix, label smoothing.
      erase_prob: probability of random erasing of each image.
      gradient_accumulation: microbatches that a batch is split into.
      ema_decay: of the averaged parameters and statistics; 0 keeps none.
      seed: of the run; keys are derived from it and the step.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mixing: MixingSpec = MixingSpec()
    erase_prob: float = 0.0
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    seed: int = 0


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    functions: ModelFunctions,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    spec: StepSpec,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one optimizer step; a step whose loss or gradient is not finite changes nothing.

    Args:
      state: the run's state; donate it.
      batch: image (B, S, S, C) uint8, label (B,) int32, mask (B,) bool.
      functions: the model.
      optimizer: from ``make_optimizer``.
      schedule: learning rate by step.
      spec: what to do.

    Returns:
      The new state and scalar metrics: loss, learning_rate, gradient_norm, bad_steps (non-finite
      steps in a row), broken (masked examples in the batch).
    """
    erase_key, mix_key, model_key = jax.random.split(
        jax.random.fold_in(jax.random.key(spec.seed), state.step), 3
    )
    images = normalise(batch["image"], mean=spec.mean, std=spec.std)
    images = random_erasing(images, erase_key, probability=spec.erase_prob)
    images, targets = mix(
        images,
        batch["label"],
        batch["mask"],
        mix_key,
        num_classes=spec.num_classes,
        spec=spec.mixing,
    )
    # Weights sum to one over the whole batch, so microbatches simply add up.
    weights = batch["mask"] / jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
    loss, gradients, stats = _gradients(
        state, (images, targets, weights), model_key, functions=functions, spec=spec
    )
    gradient_norm = optax.tree.norm(gradients)
    is_good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    learning_rate = schedule(state.step)
    params = jax.tree.map(lambda p, u: p + learning_rate * u, state.params, updates)
    proposed = (params, stats, opt_state, _average(state.ema, params, stats, spec.ema_decay))
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
    functions: ModelFunctions,
    spec: StepSpec,
) -> EvalSums:
    """Return the sums of one evaluation batch; masked rows count nothing."""
    images = normalise(batch["image"], mean=spec.mean, std=spec.std)
    logits = functions.evaluate(params, stats, images)
    return eval_sums(logits, batch["label"], batch["mask"])


def _gradients(
    state: TrainState,
    examples: tuple[jax.Array, jax.Array, jax.Array],
    key: jax.Array,
    *,
    functions: ModelFunctions,
    spec: StepSpec,
) -> tuple[jax.Array, FlatArrays, FlatArrays]:
    """Return loss, gradients and statistics, over microbatches where asked."""

    def loss_of(params: FlatArrays, stats: FlatArrays, part: Any, part_key: jax.Array) -> Any:
        images, targets, weights = part
        logits, stats = functions.train(params, stats, images, key=part_key)
        # A masked row may hold anything, and zero times infinity is not zero, nor is its gradient.
        logits = jnp.where(weights[:, None] > 0, logits.astype(jnp.float32), 0.0)
        return jnp.sum(weights * optax.softmax_cross_entropy(logits, targets)), stats

    value_and_gradient = jax.value_and_grad(loss_of, has_aux=True)
    parts = spec.gradient_accumulation
    if parts == 1:
        (loss, stats), gradients = value_and_gradient(
            state.params, state.batch_stats, examples, key
        )
        return loss, gradients, stats

    def accumulate(carry: Any, numbered_part: Any) -> tuple[Any, None]:
        loss, gradients, stats = carry
        number, part = numbered_part
        (part_loss, stats), part_gradients = value_and_gradient(
            state.params, stats, part, jax.random.fold_in(key, number)
        )
        gradients = jax.tree.map(jnp.add, gradients, part_gradients)
        return (loss + part_loss, gradients, stats), None

    # Every device's rows are dealt out over the microbatches: nothing moves between devices.
    dealt = jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1), examples
    )
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    start = (jnp.zeros((), jnp.float32), zeros, state.batch_stats)
    (loss, gradients, stats), _ = jax.lax.scan(accumulate, start, (jnp.arange(parts), dealt))
    return loss, gradients, stats


def _average(
    ema: dict[str, FlatArrays], params: FlatArrays, stats: FlatArrays, decay: float
) -> dict[str, FlatArrays]:
    if not ema:
        return {}
    current = {"params": params, "batch_stats": stats}
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, ema, current)
