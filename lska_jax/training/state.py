"""Everything that a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from lska_jax.nn.functional import FlatArrays, batch_stats, parameters
from lska_jax.running.parallel import place, state_sharding


class TrainState(NamedTuple):
    """The state of a run; random keys are derived from ``step``, so none is stored.

    Attributes:
      step: () int32, steps done, the skipped ones included.
      params: parameters by path, float32.
      batch_stats: BatchNorm statistics by path, float32.
      opt_state: of the optax optimizer.
      ema: {"params", "batch_stats"} averaged over steps, or empty without EMA.
      bad_steps: () int32, how many of the latest steps in a row were skipped as non-finite.
    """

    step: jax.Array
    params: FlatArrays
    batch_stats: FlatArrays
    opt_state: Any
    ema: dict[str, FlatArrays]
    bad_steps: jax.Array

    def for_evaluation(self) -> tuple[FlatArrays, FlatArrays]:
        """Return the parameters and statistics to evaluate with: the average where there is one."""
        if self.ema:
            return self.ema["params"], self.ema["batch_stats"]
        return self.params, self.batch_stats


def host_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, *, use_ema: bool
) -> TrainState:
    """Return a fresh state of a model, on the default device."""
    params, stats = parameters(model), batch_stats(model)
    averaged = {"params": params, "batch_stats": stats}
    # Each in one program: array by array, every shape would be compiled for.
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=jax.jit(optimizer.init)(params),
        # Copies: the step donates its state, and one buffer cannot be donated twice.
        ema=copy(averaged) if use_ema else {},
        bad_steps=jnp.zeros((), jnp.int32),
    )


def abstract_state(state: TrainState, mesh: Mesh | AbstractMesh) -> TrainState:
    """Return the state's shapes and dtypes with their shardings on a mesh.

    Args:
      state: arrays, or anything with shape and dtype.
      mesh: from ``lska_jax.running.parallel.make_mesh``.
    """
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=state_sharding(mesh, x)), state
    )


def place_state(state: TrainState, mesh: Mesh | AbstractMesh) -> TrainState:
    """Put a state onto the devices of a mesh; every process passes the same values."""
    return jax.tree.map(lambda x: place(np.asarray(x), state_sharding(mesh, x)), state)
