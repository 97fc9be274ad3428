"""Processes, the device mesh, and how arrays lie on it.

One mesh with the axes ``data`` and ``fsdp``. The batch is split over both; parameters are
replicated, or split over ``fsdp`` when that axis is larger than one. ``jax.jit`` does the rest:
the gradients' and BatchNorm's sums become collectives by themselves.
"""

import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
)

from lska_jax.running.inline_dispatch import wait_on_cpu
from lska_jax.running.joining import (
    alone_in_slurm,
    describe_cluster,
    seconds_to_join,
    watched_joining,
)

DATA_AXES = ("data", "fsdp")
DISTRIBUTED_MODES = ("auto", "on", "off")

# How long a process may be silent before the others are ended. It is silent while its machine is
# out of memory or suspended, not while it compiles or computes.
LOST_PROCESS_SECONDS = 60
_SECONDS_TO_SAY_SO = 60

# Splitting a small array saves no memory and costs a gather.
_MIN_FSDP_ELEMENTS = 2**14


def start_processes(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    distributed: str = "auto",
    timeout_seconds: int = LOST_PROCESS_SECONDS,
) -> None:
    """Join the other processes of a run, if there are any. Nothing may have been computed before.

    A process that ends without a word, or whose machine does, is noticed by the coordination
    service within ``timeout_seconds``; it then ends all the others.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: how many processes there are.
      process_id: this one's number, 0 based.
      distributed: "auto" joins where the three are given or where JAX finds a cluster (TPU pod,
        SLURM, Open MPI, Kubernetes), but not in a SLURM step of one task; "on" fails where there is
        neither; "off" never joins.
      timeout_seconds: after how long without a heartbeat a process counts as lost.

    Raises:
      ValueError: only some of the three are given, process_id is out of range, they contradict
        ``distributed``, or "on" finds nothing.
      ConnectionError: the others cannot be reached.
    """
    given = (coordinator_address, num_processes, process_id)
    if distributed not in DISTRIBUTED_MODES:
        raise ValueError(
            f"--distributed={distributed!r} is unknown; allowed: {', '.join(DISTRIBUTED_MODES)}."
        )
    if any(value is not None for value in given):
        _check_description(given, distributed)
    elif distributed == "off":
        return
    elif distributed == "auto" and (reason := alone_in_slurm()):
        print(
            f"{reason}: going on alone. --distributed=off says so, --distributed=on joins.",
            file=sys.stderr,
        )
        return
    seconds = seconds_to_join()
    described = describe_cluster() if process_id is None else f"--num_processes={num_processes} has"
    try:
        with watched_joining(described_by=described, seconds=seconds):
            jax.distributed.initialize(
                coordinator_address=coordinator_address,
                num_processes=num_processes,
                process_id=process_id,
                cluster_detection_method="deactivate" if process_id is not None else None,
                heartbeat_timeout_seconds=timeout_seconds,
                shutdown_timeout_seconds=timeout_seconds,
                # Later than our own end, whose message is readable.
                initialization_timeout=int(seconds) + _SECONDS_TO_SAY_SO,
            )
        # The service ends a process whose partner is lost by a signal, which shows no stack itself.
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
    except ValueError as error:
        # JAX says that nothing describes the processes; anything else is a mistake to be seen.
        if "defined" not in str(error):
            raise
        if distributed == "on":
            raise ValueError(
                "--distributed=on, but no cluster was found (TPU pod, SLURM, Open MPI, "
                "Kubernetes). Start the processes with srun or mpirun, or give "
                "--coordinator_address, --num_processes and --process_id to each."
            ) from error
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        # A program that has computed already, such as a notebook, is one process.
        if given == (None, None, None) and distributed == "auto" and "before any" in str(error):
            return
        raise ConnectionError(
            f"This process (number {process_id}, of {num_processes}) could not join the others at "
            f"{coordinator_address}: {str(error).splitlines()[0]}"
        ) from error


def _check_description(given: tuple[str | None, int | None, int | None], distributed: str) -> None:
    _, num_processes, process_id = given
    if distributed == "off":
        raise ValueError(
            f"--distributed=off, but processes are described: {given}. Leave "
            "--coordinator_address, --num_processes and --process_id away, or --distributed."
        )
    if num_processes is None or process_id is None or given[0] is None:
        raise ValueError(
            "Several processes need --coordinator_address, --num_processes and --process_id "
            f"together, got {given}."
        )
    if ":" not in given[0]:
        raise ValueError(f"--coordinator_address must be host:port, got {given[0]!r}.")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id must be in [0, {num_processes}), got {process_id}.")


@contextlib.contextmanager
def leaving_together() -> Iterator[None]:
    """End this process at once where the block fails, if it is one of several.

    An ordinary exit waits for all processes to come to it, and they may be waiting for this one
    inside a step. Once it is gone the coordination service ends them, with the stacks of their
    threads. An exit with a number, such as one that all have agreed on, stays an ordinary one.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1 or not _is_failure(error):
            raise
        where = f"[process {jax.process_index()} of {jax.process_count()}]"
        if isinstance(error, SystemExit):
            print(f"{where} {error.code}", file=sys.stderr)
        elif isinstance(error, ValueError | OSError):
            print(f"{where} Error: {error}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        print(f"{where} leaves; the others are ended too.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _is_failure(error: BaseException) -> bool:
    return not isinstance(error, SystemExit) or isinstance(error.code, str)


def is_main_process() -> bool:
    """Say whether this is process 0, the one that writes what only one may write."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Return when every process has come here.

    Args:
      name: the same on every process; a process that is elsewhere raises with both names.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def value_of_main(value: int) -> int:
    """Return process 0's ``value`` (32 bits) on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def make_mesh(*, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh over devices, (devices / fsdp, fsdp).

    Args:
      fsdp: how many devices share one copy of the parameters.
      devices: None takes all that the run has.

    Raises:
      ValueError: fsdp does not divide the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or count % fsdp:
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        raise ValueError(
            f"training.fsdp={fsdp} does not divide the {count} devices; allowed: "
            f"{', '.join(map(str, divisors))}."
        )
    shape, types = (count // fsdp, fsdp), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, DATA_AXES, axis_types=types, devices=devices)


def abstract_mesh(*, device_count: int, platform: str, fsdp: int = 1) -> AbstractMesh:
    """Return the mesh of ``make_mesh`` without devices, to lower for a platform.

    Args:
      device_count: how many devices there would be; fsdp divides it.
      platform: "cuda", "rocm", "tpu" or "cpu".
      fsdp: how many devices share one copy of the parameters.
    """
    return AbstractMesh(
        (device_count // fsdp, fsdp),
        DATA_AXES,
        axis_types=(AxisType.Auto,) * 2,
        abstract_device=AbstractDevice(platform, None, platform),
    )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh | AbstractMesh, array: Any) -> NamedSharding:
    """Return the sharding of one array of the train state.

    Large arrays are split over ``fsdp`` along their largest axis that it divides; all others, and
    all arrays where the axis has size 1, are replicated.

    Args:
      mesh: from ``make_mesh``.
      array: anything with a shape.
    """
    parts = mesh.shape["fsdp"]
    shape = tuple(array.shape)
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or int(np.prod(shape)) < _MIN_FSDP_ELEMENTS or not divisible:
        return replicated(mesh)
    split = max(divisible, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * split, "fsdp"))


def local_rows(sharding: NamedSharding, global_batch_size: int) -> np.ndarray:
    """Return which rows of a global batch this process's devices hold, in order.

    Args:
      sharding: from ``batch_sharding``.
      global_batch_size: rows over all processes.
    """
    slices = sharding.addressable_devices_indices_map((global_batch_size,)).values()
    ranges = {part[0].indices(global_batch_size) for part in slices if part is not None}
    return np.concatenate([np.arange(*part) for part in sorted(ranges)])


def to_global(
    batch: Mapping[str, np.ndarray], sharding: NamedSharding, *, global_batch_size: int
) -> dict[str, jax.Array]:
    """Assemble this process's rows into arrays over all devices.

    Args:
      batch: arrays whose first axis are the rows ``local_rows`` names.
      sharding: from ``batch_sharding``.
      global_batch_size: rows over all processes.
    """
    placed = {
        name: jax.make_array_from_process_local_data(
            sharding, array, (global_batch_size, *array.shape[1:])
        )
        for name, array in batch.items()
    }
    return wait_on_cpu(placed)


def place(array: Any, sharding: NamedSharding) -> jax.Array:
    """Put a host array, the same on every process, onto the devices of a sharding."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
