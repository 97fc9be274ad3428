"""Compile for a TPU that is not there, and read what the program would move and keep.

libtpu's compiler needs a description of the chips, not the chips
(``jax.experimental.topologies``). Nothing here runs on a TPU.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, Mesh, SingleDeviceSharding

from lska_jax.analysis.chips import known_topologies

# What libtpu asks the machine it runs on; on a machine without a TPU the answers are missing.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    # The lock keeps two programs off one chip; compiling holds none.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class CompiledCost:
    """What XLA says a compiled program costs one chip.

    Attributes:
      bytes_accessed: XLA's count over all operations: operands plus results, padded to tiles, in
        HBM and in on-chip memory alike. A custom call counts its operands and results, or what
        its cost estimate says.
      temporary_bytes: HBM for intermediate values, at once.
      argument_bytes: HBM for the arguments.
      output_bytes: HBM for the results.
      flops: floating-point operations, by XLA's count.
    """

    bytes_accessed: float
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int
    flops: float


def tpu_devices(topology: str = "v5e:2x2") -> tuple[Any, ...]:
    """Return the devices of a TPU topology, to compile for; the same objects at every call.

    Args:
      topology: name known to libtpu, such as "v5e:2x2" or "v5e:4x4".

    Raises:
      ImportError: libtpu is not installed.
      ValueError: libtpu does not know the topology; the message lists some that it does.
    """
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Compiling for TPU needs libtpu; install it with pip install 'jax[tpu]', or from a "
            "checkout with the extra tpu: pip install '.[tpu]'."
        ) from error
    try:
        return _devices(topology)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"libtpu does not know the topology {topology!r}: {error}. These work: "
            f"{', '.join(known_topologies())}."
        ) from error


@functools.cache
def _devices(topology: str) -> tuple[Any, ...]:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    with hidden_cpu_flags():
        return tuple(topologies.get_topology_desc(topology, platform="tpu").devices)


def compile_for_tpu(
    function: Callable[..., Any],
    *arguments: Any,
    topology: str = "v5e:2x2",
    donate_argnums: int | tuple[int, ...] = (),
    is_layout_free: bool = False,
) -> jax.stages.Compiled:
    """Compile a function for a TPU topology.

    Args:
      function: to be jitted.
      *arguments: arrays or ``jax.ShapeDtypeStruct``, in any tree. One with a sharding over devices
        of the topology keeps it (see ``tpu_devices``); all others go to the first chip.
      topology: see ``tpu_devices``.
      donate_argnums: as in ``jax.jit``.
      is_layout_free: let the compiler choose how arguments and results lie in memory, as it does
        for what lies inside a larger program.

    Returns:
      The compiled program. It cannot run here.
    """
    devices = tpu_devices(topology)
    default = SingleDeviceSharding(devices[0])

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(x, "sharding", None)
        is_for_tpu = sharding is not None and _is_over(sharding, devices)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding if is_for_tpu else default)

    shaped = jax.tree.map(abstract, arguments)
    chosen: dict[str, Any] = {}
    if is_layout_free:
        free = jax.tree.map(lambda x: Format(Layout.AUTO, x.sharding), shaped)
        chosen = {"in_shardings": free, "out_shardings": Format(Layout.AUTO)}
        shaped = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shaped)
    with _chip_in_context(devices[0]):
        lowered = jax.jit(function, donate_argnums=donate_argnums, **chosen).lower(*shaped)
    with hidden_cpu_flags():
        return lowered.compile()


def compiled_cost(compiled: jax.stages.Compiled) -> CompiledCost:
    """Return XLA's own figures for a compiled program."""
    analysis: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    return CompiledCost(
        bytes_accessed=analysis["bytes accessed"],
        temporary_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        flops=analysis.get("flops", 0.0),
    )


def _chip_in_context(device: jax.Device) -> contextlib.AbstractContextManager[Any]:
    """Tell operations that choose by platform what they are traced for, unless a mesh does."""
    if not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.set_mesh(jax.make_mesh((1,), ("chip",), (AxisType.Auto,), devices=[device]))


@contextlib.contextmanager
def hidden_cpu_flags() -> Iterator[None]:
    """Hide XLA_FLAGS from libtpu, which ends the process at a flag for CPU it does not know."""
    # jaxlib and libtpu each read the variable once, when they need it: jaxlib first.
    jax.devices("cpu")
    flags = os.environ.pop("XLA_FLAGS", None)
    try:
        yield
    finally:
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags


def _is_over(sharding: Any, devices: tuple[Any, ...]) -> bool:
    mesh = getattr(sharding, "mesh", None)
    own = mesh.devices.flat if isinstance(mesh, Mesh) else sharding.device_set
    return set(own) <= set(devices)
