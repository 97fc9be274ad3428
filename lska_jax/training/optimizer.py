"""AdamW of the reference recipe (timm 0.4.12's defaults), Muon, and what of a network decays."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from lska_jax.models.heads import BACKBONE
from lska_jax.nn.functional import FlatArrays
from lska_jax.training.tuning import Tuning

DECAYS = ("matrices", "all", "not_backbone_norms")
EVERYTHING = Tuning()
# Images have fewer channels, and so has what a depth-wise kernel sees.
_FEWEST_HIDDEN = 8
# Coefficients of Muon's page, for each of five steps.
_NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


def decay_mask(
    params: FlatArrays, *, no_decay: tuple[str, ...] = (), decay: str = "matrices"
) -> dict[str, bool]:
    """Tell which parameters decay: usually not biases, norms and layer scales, which are all 1-D.

    Args:
      params: by path.
      no_decay: ends of the paths of others that do not, as a family names them.
      decay: "matrices" as above; "all", as detectors and Semantic FPN are trained; or
        "not_backbone_norms", as UPerNet is: all but the norms of a backbone.
    """
    if decay == "all":
        return dict.fromkeys(params, True)
    if decay == "not_backbone_norms":
        return {path: not _is_backbone_norm(path) for path in params}
    return {path: a.ndim > 1 and not path.endswith(no_decay) for path, a in params.items()}


def _is_backbone_norm(path: str) -> bool:
    first, *inner, _ = path.split("/")
    return first == BACKBONE and any(part.startswith("norm") for part in inner)


def muon_mask(params: FlatArrays, *, others: tuple[str, ...] = ()) -> dict[str, bool]:
    """Tell which parameters are matrices between hidden channels, which Muon takes.

    Those of linear layers and full convolutions; not depth-wise kernels, which mix no channels, nor
    the first layer.

    Args:
      params: by path.
      others: ends of the paths of what is none either: the classifier, tables of positions.
    """
    return {
        path: a.ndim in (2, 4) and a.shape[-2] >= _FEWEST_HIDDEN and not path.endswith(others)
        for path, a in params.items()
    }


def make_optimizer(
    *,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float = 0.0,
    no_decay: tuple[str, ...] = (),
    decay: str = "matrices",
    tuning: Tuning = EVERYTHING,
    muon_rate: float = 0.0,
    head: tuple[str, ...] = (),
) -> optax.GradientTransformationExtraArgs:
    """Return AdamW (arXiv 1711.05101) over flat parameters at learning rate 1.

    The step multiplies the updates by the schedule: the whole update is proportional to the rate,
    and a skipped step must not hold the schedule back. It is called with ``step=``.

    Args:
      weight_decay: decoupled, times the learning rate; masked by ``decay_mask``.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      clip_norm: largest global norm of the gradient; 0 does not clip.
      no_decay: see ``decay_mask``.
      decay: see ``decay_mask``.
      tuning: parameters that are frozen, which it keeps no moments of, or start later.
      muon_rate: learning rate of Muon for the parameters of ``muon_mask``, as a multiple of that of
        AdamW; 0 leaves all to AdamW.
      head: paths of the classifier, which AdamW keeps.
    """
    mask = functools.partial(decay_mask, no_decay=no_decay, decay=decay)
    adamw = optax.adamw(1.0, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=mask)
    chosen: optax.GradientTransformation = adamw
    if muon_rate:
        muon = _muon(muon_rate, weight_decay=weight_decay)
        chosen = _divided(muon, adamw, functools.partial(muon_mask, others=no_decay + head))
    if tuning.starts:
        chosen = _starting_late(chosen, tuning.starts)
    if clip_norm:
        clip = optax.clip_by_global_norm(clip_norm)
        # What has not started has no part in the norm.
        waiting = [_only_started(tuning.starts)] if tuning.starts else []
        chosen = optax.chain(*waiting, clip, chosen)
    chosen = optax.with_extra_args_support(chosen)
    return optax.GradientTransformationExtraArgs(
        lambda params: chosen.init(tuning.trained(params)), chosen.update
    )


def _muon(rate: float, *, weight_decay: float) -> optax.GradientTransformation:
    """Return Muon (https://kellerjordan.github.io/posts/muon): momentum, made orthogonal.

    A kernel is the matrix from all of its inputs, (kernel height x width x in), to its outputs.
    The update of one with more outputs than inputs is larger, by the root of their ratio.
    """

    def dimensions(params: Any) -> Any:
        return jax.tree.map(
            lambda a: contrib.MuonDimensionNumbers(tuple(range(a.ndim - 1)), (a.ndim - 1,)), params
        )

    def widen(update: jax.Array, _: Any) -> jax.Array:
        outputs = update.shape[-1]
        return update * max(1.0, outputs / (update.size / outputs)) ** 0.5

    # With coefficients for every step optax makes a loop of them: the same numbers from a fifth of
    # the program, which is compiled in half of the time and quicker on CPU.
    return optax.chain(
        contrib.scale_by_muon(_NEWTON_SCHULZ, weight_dimension_numbers=dimensions),
        optax.stateless_with_tree_map(widen),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )


def _divided(
    first: optax.GradientTransformation,
    second: optax.GradientTransformation,
    is_first: Callable[[FlatArrays], Mapping[str, bool]],
) -> optax.GradientTransformation:
    """Return an optimizer that gives each of two its own parameters, and no others."""

    def parts(arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        chosen = is_first(arrays)
        return (
            {path: array for path, array in arrays.items() if chosen[path]},
            {path: array for path, array in arrays.items() if not chosen[path]},
        )

    def init(params: Any) -> Any:
        own, others = parts(params)
        return first.init(own), second.init(others)

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        pairs = zip(parts(gradients), state, parts(params), strict=True)
        (own, own_state), (others, others_state) = (
            optimizer.update(*pair) for optimizer, pair in zip((first, second), pairs, strict=True)
        )
        return own | others, (own_state, others_state)

    return optax.GradientTransformation(init, update)


def _only_started(starts: Mapping[str, int]) -> optax.GradientTransformationExtraArgs:
    """Return zeros for the gradients of parameters that start later; they are by path."""

    def update(gradients: Any, state: Any, params: Any = None, *, step: Any, **others: Any) -> Any:
        kept = {
            path: jnp.where(step >= starts.get(path, 0), gradient, jnp.zeros_like(gradient))
            for path, gradient in gradients.items()
        }
        return kept, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _starting_late(
    optimizer: optax.GradientTransformation, starts: Mapping[str, int]
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that begins with each parameter at its step, as with a new one.

    Until then the parameter has no update, and its moments and their count stay at zero: AdamW's
    correction of their bias counts from where a parameter starts.

    Args:
      optimizer: of all of them.
      starts: by path.
    """
    groups = {
        f"from_step_{start}": (start, [path for path, other in starts.items() if other == start])
        for start in sorted(set(starts.values()))
    }

    def init(params: Any) -> Any:
        return {
            name: optimizer.init({path: params[path] for path in paths})
            for name, (_, paths) in groups.items()
        }

    def update(gradients: Any, state: Any, params: Any = None, *, step: Any, **others: Any) -> Any:
        updates: dict[str, Any] = {}
        after = {}
        for name, (start, paths) in groups.items():
            given = {path: gradients[path] for path in paths}
            of_group, kept = optimizer.update(
                given, state[name], {path: params[path] for path in paths}
            )
            has_started = step >= start
            updates |= jax.tree.map(
                lambda u, has_started=has_started: jnp.where(has_started, u, jnp.zeros_like(u)),
                of_group,
            )
            after[name] = jax.tree.map(
                lambda new, old, has_started=has_started: jnp.where(has_started, new, old),
                kept,
                state[name],
            )
        return updates, after

    return optax.GradientTransformationExtraArgs(init, update)
