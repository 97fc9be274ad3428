"""When a run stops that was asked to: on every process at the same step."""

from __future__ import annotations

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from lska_jax.running.stop_signals import StopSignals

# Answers are read this many questions late, so that a device is never waited for.
_QUESTIONS_IN_FLIGHT = 2


class AgreedStop:
    """Answers, on every process alike, whether one of them was asked to stop.

    One process asks itself. Several take the maximum over their requests, on the devices; all of
    them ask equally often, and the first yes is the same question's everywhere.

    Args:
      signals: this process's requests.
      mesh: all devices.
    """

    def __init__(self, signals: StopSignals, mesh: Mesh | AbstractMesh):
        self._signals = signals
        self._answers: deque[jax.Array] = deque()
        if jax.process_count() > 1:
            self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            shape = jax.ShapeDtypeStruct((jax.device_count(),), jnp.int32, sharding=self._sharding)
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._any = jax.jit(jnp.max, out_shardings=everywhere).lower(shape).compile()

    @property
    def can_be_alone(self) -> bool:
        """Whether this process may stop between two questions, without the others."""
        return jax.process_count() == 1

    def is_agreed(self) -> bool:
        """Ask; for all processes at the same point of the program."""
        if self.can_be_alone:
            return self._signals.is_requested
        mine = np.full(jax.local_device_count(), self._signals.is_requested, np.int32)
        requests = jax.make_array_from_process_local_data(
            self._sharding, mine, (jax.device_count(),)
        )
        self._answers.append(self._any(requests))
        if len(self._answers) <= _QUESTIONS_IN_FLIGHT:
            return False
        return bool(self._answers.popleft())
