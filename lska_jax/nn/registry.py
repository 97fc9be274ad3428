"""``create_model``: a named model, with any part of its config replaced."""

import dataclasses
from typing import Any

from flax import nnx

from lska_jax.nn.model_table import model_entry
from lska_jax.nn.van import VAN, VANConfig
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE


def create_model(
    name: str,
    *,
    k: int = DEFAULT_KERNEL_SIZE,
    num_classes: int = 1000,
    in_channels: int = 3,
    rngs: nnx.Rngs | None = None,
    **config: Any,
) -> VAN:
    """Build a named model with freshly initialised parameters.

    Args:
      name: one of ``list_models()``, for example "van_lska_tiny".
      k: extent of the large kernel.
      num_classes: size of the logits; 0 makes the model return pooled features.
      in_channels: channels of the images.
      rngs: source of the initial parameters; None is ``nnx.Rngs(0)``.
      **config: any other field of ``VANConfig``: dilation, drop_rate, drop_path_rate, dtype,
        stem_stride, remat, implementation, or dims, depths and ffn_ratios of a size of your own.

    Returns:
      A model in training mode, as ``nnx`` builds it; call ``model.eval()`` for inference.

    Raises:
      ValueError: an unknown name (the closest is suggested), an invalid k or config value.
      TypeError: a field that ``VANConfig`` does not have.
    """
    entry = model_entry(name)
    allowed = {field.name for field in dataclasses.fields(VANConfig)} - {"attention"}
    unknown = sorted(set(config) - allowed)
    if unknown:
        raise TypeError(
            f"create_model has no argument {', '.join(unknown)}; allowed: "
            f"{', '.join(sorted(allowed))}, rngs."
        )
    # Tuples hash, lists do not, and the config is part of the module's static structure.
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    fields = {"attention": entry.attention, **entry.size._asdict(), **given}
    van_config = VANConfig(k=k, num_classes=num_classes, in_channels=in_channels, **fields)
    return VAN(van_config, rngs=nnx.Rngs(0) if rngs is None else rngs)
