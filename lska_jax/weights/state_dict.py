"""Load a PyTorch state_dict with the reference's names into a model."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.nn.van import VAN
from lska_jax.weights.reference_names import reference_name


def load_state_dict(model: VAN, state_dict: Mapping[str, Any]) -> None:
    """Write reference weights into a model, in place, all of them or none.

    Args:
      model: a VAN with LSKA or LKA.
      state_dict: {reference classification name: array in PyTorch layout}, floating point; the
        ``num_batches_tracked`` counters are ignored.

    Raises:
      ValueError: names are missing or unexpected, or arrays have another shape or no
        floating-point dtype; every one is listed, and the model is left as it was.
    """
    wanted = {**parameters(model), **batch_stats(model)}
    given = {name: a for name, a in state_dict.items() if not _is_counter(name)}
    loaded: dict[str, jnp.ndarray] = {}
    missing, wrong = [], []
    for path, current in wanted.items():
        name, layout = reference_name(path, attention=model.config.attention)
        if name not in given:
            missing.append(name)
            continue
        array = np.asarray(given.pop(name))
        if array.ndim != layout.ndim or layout.shape(array.shape) != current.shape:
            wrong.append(f"{name}: {array.shape}, the model's {path} is {current.shape} here")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            wrong.append(f"{name}: dtype {array.dtype}, expected floating point")
        else:
            loaded[path] = jnp.asarray(layout.array(array), dtype=current.dtype)
    problems = [
        f"{title} ({len(entries)}):\n  " + "\n  ".join(entries)
        for title, entries in (
            ("missing", missing),
            ("unexpected", list(given)),
            ("wrong shape or dtype", wrong),
        )
        if entries
    ]
    if problems:
        raise ValueError(
            "The state_dict does not fit this model, nothing was loaded. Check the model's name, "
            "k and num_classes.\n" + "\n".join(problems)
        )
    assign(model, loaded)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
