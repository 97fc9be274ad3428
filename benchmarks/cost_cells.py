"""The programs of ``benchmarks.cost_against_k``, in processes that can be stopped.

A large 2-D kernel as a sum of shifted slices has thousands of taps, and XLA may take minutes to
compile them; nothing inside a process can interrupt that. So processes of their own compile and
run what they are asked to, and are ended where it takes too long.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

FORMS = ("lka_trivial", "lska_trivial", "lka", "lska")
ATTENTION, NETWORK = "attention", "network"


class Scale(NamedTuple):
    """The sizes that programs have, and what computes them.

    Attributes:
      batch_size: images.
      image_size: side of the images, in pixels.
      architecture: fields of ``VANConfig`` that replace those of tiny.
      implementation: of the depth-wise convolutions.
      dtype: compute dtype.
    """

    batch_size: int
    image_size: int
    architecture: Mapping[str, Any]
    implementation: str = "auto"
    dtype: str = "float32"


class CellFailed(Exception):
    """A program could not be compiled or run within its time; the message says why."""


class Worker:
    """A process that holds the compiled programs of one cell at a time.

    Args:
      scale: sizes of its programs.
    """

    def __init__(self, scale: Scale):
        self._scale = scale
        self._process: Any = None
        self._connection: Any = None

    def ask(self, *request: Any) -> None:
        """Send a request; the process is started if there is none.

        ("build", form, part, k) and ("build_tpu", form, part, k) are answered by a dictionary of
        facts for each program, ("run", number of the program) by its seconds.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._scale), daemon=True)
            self._process.start()
            theirs.close()
        self._connection.send(request)

    def answer(self, *, within_seconds: float) -> Any:
        """Return what the last request gave.

        Raises:
          CellFailed: it took longer, or failed; the process is ended.
        """
        try:
            if not self._connection.poll(max(within_seconds, 0.0)):
                raise CellFailed(f"took longer than {within_seconds:.0f} s")
            is_good, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self.close()
            raise CellFailed("its process died, out of memory perhaps") from error
        except CellFailed:
            self.close()
            raise
        if not is_good:
            self.close()
            raise CellFailed(value)
        return value

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _serve(connection: Connection, scale: Scale) -> None:
    """Answer requests until the other side is gone."""
    from benchmarks.harness import seconds_of

    programs: list[Any] = []
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            match request:
                case ("run", number):
                    answer: Any = seconds_of(programs[number])
                case ("build", form, part, k):
                    programs.clear()
                    answer = []
                    for function, arguments in programs_of(form, part, k, scale):
                        compiled, facts = _compile(function, arguments)
                        programs.append(_bind(compiled, arguments))
                        answer.append(facts)
                case ("build_tpu", form, part, k):
                    answer = [
                        _compile_for_tpu(function, arguments, is_layout_free=part == ATTENTION)
                        for function, arguments in programs_of(form, part, k, scale)
                    ]
            connection.send((True, answer))
        except Exception as error:  # the parent says why the cell has no figure
            connection.send((False, f"{type(error).__name__}: {str(error).splitlines()[0]}"))


def programs_of(
    form: str, part: str, k: int, scale: Scale
) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Return the functions of a cell and their arguments, forward + backward.

    Args:
      form: one of ``FORMS``.
      part: ATTENTION, one module on the map of each stage, or NETWORK, a train step.
      k: extent of the kernel.
      scale: sizes and implementation.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from benchmarks import networks
    from lska_jax import create_model
    from lska_jax.models.van import ATTENTIONS
    from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters

    common = {"implementation": scale.implementation, "dtype": scale.dtype}
    if part == NETWORK:
        model = create_model(f"van_{form}_tiny", k=k, **scale.architecture, **common)
        batch = networks.random_batch(scale.batch_size, scale.image_size, 1000)
        step = networks.loss_and_gradients(ModelFunctions(model))
        return [(step, (parameters(model), batch_stats(model), *batch))]
    programs = []
    for height, width, channels in stage_maps(scale):
        module = ATTENTIONS[form](channels, k, rngs=nnx.Rngs(0), **common)
        graph, state = nnx.split(module)
        shape = (scale.batch_size, height, width, channels)
        drawn = np.random.default_rng(k).standard_normal((2, *shape), np.float32)
        images, gradient = drawn.astype(jnp.dtype(scale.dtype))

        def both(state: Any, images: Any, gradient: Any, graph: Any = graph) -> Any:
            def run(state: Any, images: Any) -> Any:
                return nnx.merge(graph, state)(images)

            out, pull = jax.vjp(run, state, images)
            return out, pull(gradient)

        programs.append((both, (state, images, gradient)))
    return programs


def stage_maps(scale: Scale) -> list[tuple[int, int, int]]:
    """Return height, width and channels of the map of every stage."""
    from lska_jax.models.van_config import SIZES

    dims = scale.architecture.get("dims", SIZES["tiny"].dims)
    side, maps = scale.image_size, []
    for index, channels in enumerate(dims):
        side = -(-side // (4 if index == 0 else 2))
        maps.append((side, side, channels))
    return maps


def _compile(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, dict]:
    import jax

    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    return compiled, {
        "compile_seconds": time.perf_counter() - started,
        "memory_bytes": memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
    }


def _compile_for_tpu(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, is_layout_free: bool
) -> dict:
    from lska_jax.analysis.tpu_compile import compile_for_tpu, compiled_cost

    cost = compiled_cost(compile_for_tpu(function, *arguments, is_layout_free=is_layout_free))
    return {"bytes_accessed": cost.bytes_accessed, "temporary_bytes": cost.temporary_bytes}


def _bind(compiled: Any, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    import jax

    on_device = jax.device_put(arguments)
    return lambda: compiled(*on_device)
