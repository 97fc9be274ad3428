"""What the configs of all families share: fields, their plain form, and how they are described."""

import dataclasses
from typing import Any

from lska_jax.models.table import dtype_name, family_of, named_model, plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The fields that every family's config has; a family's own class adds what it has besides.

    Attributes:
      num_classes: size of the logits; 0 makes the model return pooled features.
      in_channels: channels of the images.
      drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
      dtype: name of the compute dtype. Parameters, statistics, softmax and the head are float32.
      remat: recompute each block in the backward pass instead of keeping its activations. On CPU,
        where that saves no memory, only FFNs with a convolution inside, see ``ops.images_in_turn``;
        it does nothing there with dropout in the FFN or on several devices.

    The operations have gradients of their own: reverse mode (``jax.grad``, ``jax.vjp``), and no
    forward mode. Products in float32 follow ``jax_default_matmul_precision``, which on TPU and GPU
    is below float32 unless it is set to "highest".

    Raises:
      ValueError: values that make no network; every one is named.
    """

    num_classes: int = 1000
    in_channels: int = 3
    drop_path_rate: float = 0.0
    dtype: Any = "float32"
    remat: bool = False

    @property
    def least_side(self) -> int:
        """Least height and width of images, in pixels; smaller ones would leave some map empty."""
        return 1

    def __post_init__(self) -> None:
        """Bring the fields into plain form and check them by the rule of the family."""
        for name, value in plain(vars(self)).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        if problems := family_of(self).check(vars(self)):
            raise ValueError(" ".join(problems))


def describe_fields(config: Any, kind: str, fields: tuple[str, ...]) -> str:
    """Return a config in a few words, as in "convnext_tiny, 1000 classes".

    Args:
      config: of any family.
      kind: what the network is called if it is no named model, as in "a ConvNeXt".
      fields: those that are said besides.
    """
    shown = [f"{field}={getattr(config, field)}" for field in fields]
    words = [named_model(config) or kind, *shown]
    words.append(f"{config.num_classes} classes" if config.num_classes else "no head")
    if config.in_channels != 3:
        words.append(f"{config.in_channels} input channels")
    return ", ".join(words)
