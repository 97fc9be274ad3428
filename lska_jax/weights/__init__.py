"""Checkpoints of others: PyTorch names and layouts on one side, our models on the other."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.weights.state_dict import load_state_dict as load_state_dict

__getattr__, __all__ = lazy_attributes(__name__, {"load_state_dict": "lska_jax.weights.state_dict"})
