"""Parameters and FLOPs of any network or layer, counted from its trace.

The FLOPs of a forward pass are counted as the published figures of VAN (arXiv 2202.09741) and LSKA
(arXiv 2309.01439) are: one for each multiply-accumulate of a convolution or matrix product, one for
each element that a convolution's or product's bias is added to, two for each element that BatchNorm
normalises. Activations, LayerNorm, layer scale, sums, products and pooling count nothing.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core
from jax.sharding import use_abstract_mesh

from lska_jax.models.build import abstract_model
from lska_jax.nn.functional import flat_values
from lska_jax.running.parallel import abstract_mesh

# Which arrays' paths an array inside the trace is computed from, and whether from the images too.
_Sources = tuple[frozenset[str], bool]
_NOTHING: _Sources = (frozenset(), False)


class Cost(NamedTuple):
    """What a part costs.

    Attributes:
      parameters: trainable ones.
      macs: multiply-accumulates of its convolutions and matrix products, of one image.
      flops: of one image's forward pass, by the convention of this module.
    """

    parameters: int
    macs: int
    flops: int


def network_cost(config: Any, *, height: int = 224, width: int = 224) -> Cost:
    """Count a whole network of any family.

    Args:
      config: its config.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    if hasattr(config, "implementation"):
        # The formulation that computes the convolution as it is defined.
        config = dataclasses.replace(config, implementation="xla", dtype="float32")
    return module_cost(abstract_model(config), (height, width, config.in_channels))


def module_cost(module: nnx.Module, shape: Sequence[int]) -> Cost:
    """Count a layer or network.

    Args:
      module: real or abstract (from ``nnx.eval_shape``); counted in evaluation mode. Its depth-wise
        convolutions need ``implementation="xla"``: other formulations spend other operations.
      shape: of its input without the batch, (height, width, channels).
    """
    inference = nnx.view(
        module, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    graph, state = nnx.split(inference)
    arrays = flat_values(state)
    # On CPU some operations take other forms, with other products.
    with use_abstract_mesh(abstract_mesh(device_count=1, platform="tpu")):
        trace = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(
            state, jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        )
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    sources: list[_Sources] = [(frozenset({path}), False) for path in paths]
    counted: Counter[str] = Counter()
    _count(trace.jaxpr, [*sources, (frozenset(), True)], counted, times=1)
    parameters = flat_values(nnx.state(module, nnx.Param))
    macs = counted.pop("", 0)
    added = sum(_share(path, arrays) * elements for path, elements in counted.items())
    return Cost(sum(math.prod(x.shape) for x in parameters.values()), macs, macs + added)


def _share(path: str, arrays: Mapping[str, Any]) -> int:
    """Return what an element counts that a parameter, as the key of its module, is applied to."""
    module, _, leaf = path.rpartition("/")
    if f"{module}/var" in arrays:
        return 2 if leaf == "bias" else 0
    return 1 if leaf == "bias" and f"{module}/kernel" in arrays else 0


def _count(
    jaxpr: core.Jaxpr, inputs: Sequence[_Sources], counted: Counter[str], *, times: int
) -> list[_Sources]:
    """Add up a trace: multiply-accumulates under "", and elements by the parameter applied to them.

    Args:
      jaxpr: the trace.
      inputs: sources of its inputs.
      counted: what is added to.
      times: how often the trace is run.

    Returns:
      Sources of its outputs.
    """
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def source(atom: Any) -> _Sources:
        return _NOTHING if isinstance(atom, core.Literal) else known.get(atom, _NOTHING)

    for equation in jaxpr.eqns:
        operands = [source(atom) for atom in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            repeats = equation.params.get("length", 1)
            outputs = _count(inner, operands[-len(inner.invars) :], counted, times=times * repeats)
        else:
            output: Any = equation.outvars[0]
            atoms: list[Any] = equation.invars
            size = math.prod(output.aval.shape) * times
            is_product = equation.primitive.name in ("dot_general", "conv_general_dilated")
            # A product with a vector is a sum, LayerNorm's on CPU.
            if is_product and all(atom.aval.ndim > 1 for atom in atoms):
                counted[""] += size * _depth(equation)
            elif any(of_images for _, of_images in operands):
                # A parameter meets the map: an addition of a bias, or a step of a norm.
                for paths, of_images in operands:
                    for path in () if of_images else paths:
                        counted[path] = max(counted[path], size)
            outputs = [_merged(operands)] * len(equation.outvars)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [source(atom) for atom in jaxpr.outvars]


def _inner(equation: core.JaxprEqn) -> core.Jaxpr | None:
    """Return the trace inside a call (jit, custom gradients, scan), or None."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if inner is not None:
            return getattr(inner, "jaxpr", inner)
    return None


def _depth(equation: core.JaxprEqn) -> int:
    """Return how many products are summed for one element of the output."""
    operands: list[Any] = equation.invars
    left, right = (atom.aval.shape for atom in operands[:2])
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(left[axis] for axis in contracted)
    out_channels = equation.params["dimension_numbers"].rhs_spec[0]
    return math.prod(right) // right[out_channels]


def _merged(operands: Sequence[_Sources]) -> _Sources:
    of_images = any(from_images for _, from_images in operands)
    # What is computed from the images is a map, whatever it met before.
    paths = frozenset() if of_images else frozenset().union(*(paths for paths, _ in operands))
    return paths, of_images
