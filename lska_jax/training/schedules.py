"""Learning rates as functions of the step: timm 0.4.12's cosine, and those of dense recipes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

Schedule = Callable[[jax.Array | int], jax.Array]


def cosine_schedule(
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: int,
    learning_rate: float,
    min_learning_rate: float,
    warmup_learning_rate: float,
    by: str = "epoch",
) -> Schedule:
    """Return the learning rate as a function of the step.

    Linear warm-up, then a cosine whose clock starts at epoch 0 (the warm-up does not shift it):

        lr(t) = min + (lr - min) (1 + cos(pi t / epochs)) / 2      for warmup <= t < epochs

    then the minimum, for the cooldown.

    Args:
      steps_per_epoch: steps of one epoch.
      epochs: length of the cosine, in epochs, the warm-up included.
      warmup_epochs: length of the warm-up, in epochs.
      learning_rate: at the top of the cosine.
      min_learning_rate: at its bottom.
      warmup_learning_rate: at step 0.
      by: "epoch" keeps the rate during an epoch, as the reference does; "step" moves on at every
        step, which short runs prefer.

    Raises:
      ValueError: ``by`` is neither.
    """
    if by not in ("epoch", "step"):
        raise ValueError(f"optimizer.schedule_by={by!r} is unknown; allowed: epoch, step.")

    def schedule(step: jax.Array | int) -> jax.Array:
        time = jnp.asarray(step, jnp.float32) / steps_per_epoch
        if by == "epoch":
            time = jnp.asarray(jnp.asarray(step) // steps_per_epoch, jnp.float32)
        warming = warmup_learning_rate + time * (
            (learning_rate - warmup_learning_rate) / max(warmup_epochs, 1)
        )
        # (1 + cos(pi t)) / 2 = sin(pi (1 - t) / 2)^2, which float32 holds to the end of the run.
        time_left = jnp.maximum(epochs - time, 0.0) / epochs
        cosine = min_learning_rate + (learning_rate - min_learning_rate) * (
            jnp.sin(0.5 * jnp.pi * time_left) ** 2
        )
        return jnp.where(time < warmup_epochs, warming, cosine)

    return schedule


def poly_schedule(
    *,
    total_steps: int,
    learning_rate: float,
    power: float,
    warmup_steps: int = 0,
    warmup_learning_rate: float = 0.0,
) -> Schedule:
    """Return learning_rate (1 - step / total_steps)^power, with a linear warm-up on top of it.

    Args:
      total_steps: of the run.
      learning_rate: at step 0 without a warm-up.
      power: 1 is a straight line.
      warmup_steps: in which the rate is multiplied by a factor that grows to 1.
      warmup_learning_rate: ``learning_rate`` times the factor at step 0.
    """
    factor = _warmup(warmup_steps, warmup_learning_rate / max(learning_rate, 1e-38))

    def schedule(step: jax.Array | int) -> jax.Array:
        left = jnp.maximum(total_steps - jnp.asarray(step, jnp.float32), 0.0) / total_steps
        return learning_rate * left**power * factor(step)

    return schedule


def drops_schedule(
    *,
    drop_steps: Sequence[int],
    learning_rate: float,
    warmup_steps: int = 0,
    warmup_learning_rate: float = 0.0,
) -> Schedule:
    """Return a rate that is a tenth of what it was from each of some steps on; see above."""
    factor = _warmup(warmup_steps, warmup_learning_rate / max(learning_rate, 1e-38))

    def schedule(step: jax.Array | int) -> jax.Array:
        passed = jnp.asarray(step) >= jnp.asarray(tuple(drop_steps) or (2**31 - 1,))
        return learning_rate * 0.1 ** jnp.sum(passed, dtype=jnp.float32) * factor(step)

    return schedule


def make_schedule(settings: ConfigDict, *, steps_per_epoch: int, total_steps: int) -> Schedule:
    """Return the schedule of a checked ``config.optimizer``.

    Args:
      settings: the group.
      steps_per_epoch: steps of one epoch.
      total_steps: of the run.
    """
    rates = {
        "learning_rate": settings.learning_rate,
        "warmup_learning_rate": settings.warmup_learning_rate,
    }
    if settings.schedule == "poly":
        return poly_schedule(
            total_steps=total_steps,
            power=settings.power,
            warmup_steps=settings.warmup_steps,
            **rates,
        )
    if settings.schedule == "drops":
        return drops_schedule(
            drop_steps=[steps_per_epoch * epoch for epoch in settings.drop_epochs],
            warmup_steps=settings.warmup_steps,
            **rates,
        )
    return cosine_schedule(
        steps_per_epoch=steps_per_epoch,
        epochs=settings.epochs,
        warmup_epochs=settings.warmup_epochs,
        min_learning_rate=settings.min_learning_rate,
        by=settings.schedule_by,
        **rates,
    )


def _warmup(steps: int, ratio: float) -> Schedule:
    """Return the factor of a warm-up, as mmcv has it: from ``ratio`` to 1 in a straight line."""

    def factor(step: jax.Array | int) -> jax.Array:
        done = jnp.minimum(jnp.asarray(step, jnp.float32) / max(steps, 1), 1.0)
        return ratio + (1.0 - ratio) * done if steps else jnp.ones((), jnp.float32)

    return factor
