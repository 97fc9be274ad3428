"""AdamW of the reference recipe (timm 0.4.12's defaults), and what of a network decays."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lska_jax.models.heads import BACKBONE
from lska_jax.nn.functional import FlatArrays
from lska_jax.training.tuning import Tuning

DECAYS = ("matrices", "all", "not_backbone_norms")
EVERYTHING = Tuning()


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
    """
    mask = functools.partial(decay_mask, no_decay=no_decay, decay=decay)
    adamw = optax.adamw(1.0, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=mask)
    if tuning.starts:
        adamw = _starting_late(adamw, tuning.starts)
    if clip_norm:
        adamw = optax.chain(optax.clip_by_global_norm(clip_norm), adamw)
    chosen = optax.with_extra_args_support(adamw)
    return optax.GradientTransformationExtraArgs(
        lambda params: chosen.init(tuning.trained(params)), chosen.update
    )


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
