"""A step together with the shapes and the mesh that it is compiled for."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractMesh, Mesh, use_abstract_mesh


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function and its abstract arguments.

    The mesh is in context while it is traced: it tells operations which platform they are for, and
    those that the compiler cannot split how to split themselves.

    Attributes:
      function: from ``jax.jit``.
      arguments: shapes, dtypes and shardings over the mesh.
      mesh: of devices, of a topology's devices, or abstract.
    """

    function: Any
    arguments: tuple[Any, ...]
    mesh: Mesh | AbstractMesh

    def lower(self) -> jax.stages.Lowered:
        """Trace and lower; a mesh of devices or of a topology's devices is needed."""
        with self._tracing():
            return self.function.lower(*self.arguments)

    def compile(self) -> jax.stages.Compiled:
        """Trace, lower and compile."""
        return self.lower().compile()

    def export(self, platform: str) -> export.Exported:
        """Trace and lower for a platform that need not be here, such as "cuda"."""
        with self._tracing():
            return export.export(self.function, platforms=(platform,))(*self.arguments)

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        """Have the mesh in context, and no collection of cycles: a sixth of the time to trace."""
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            mesh = self.mesh
            with jax.set_mesh(mesh) if isinstance(mesh, Mesh) else use_abstract_mesh(mesh):
                yield
        finally:
            if was_enabled:
                gc.enable()


class Programs:
    """One step for every shape that its batch may have, which is its last argument.

    Args:
      programs: one a shape.
    """

    def __init__(self, programs: Sequence[Program]):
        self._programs = programs
        self._compiled: dict[Any, jax.stages.Compiled] = {}

    def compile(self) -> None:
        """Compile each of them."""
        for program in self._programs:
            self._compiled[_shapes(program.arguments[-1])] = program.compile()

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of the batch's shapes.

        Raises:
          ValueError: the batch has shapes that the step was not compiled for.
        """
        shapes = _shapes(arguments[-1])
        if shapes not in self._compiled:
            compiled = " or ".join(str(dict(known)) for known in self._compiled)
            raise ValueError(
                f"A batch has the shapes {dict(shapes)}; the step was compiled for {compiled}. "
                "Add these to the shapes that the task announces."
            )
        return self._compiled[shapes](*arguments)


def _shapes(batch: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    # What is no array is a task's constants, which have one shape.
    return tuple(
        sorted((name, array.shape) for name, array in batch.items() if hasattr(array, "shape"))
    )
