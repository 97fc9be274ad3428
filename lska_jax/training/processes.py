"""What the processes of one run have to agree on, before they do something to shared files."""

from __future__ import annotations


def is_main_process() -> bool:
    """Say whether this is process 0, the one that writes what only one may write."""
    import jax

    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Return when every process has come here.

    Args:
        name: the same on every process; a process that is elsewhere raises with both names.
    """
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def value_of_main(value: int) -> int:
    """Return process 0's `value` (32 bits) on every process."""
    import jax

    if jax.process_count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
