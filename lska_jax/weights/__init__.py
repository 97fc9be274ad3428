"""Pretrained weights: PyTorch checkpoints in and out, model folders, other kernel sizes."""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.weights.export_jax import export_model as export_model
    from lska_jax.weights.export_torch import export_checkpoint as export_checkpoint
    from lska_jax.weights.import_torch import import_checkpoint as import_checkpoint
    from lska_jax.weights.model_facts import ModelFacts as ModelFacts
    from lska_jax.weights.model_folder import read_facts as read_facts
    from lska_jax.weights.model_folder import read_model_folder as read_model_folder
    from lska_jax.weights.model_folder import write_model_folder as write_model_folder
    from lska_jax.weights.state_dict import load_state_dict as load_state_dict
    from lska_jax.weights.state_dict import make_state_dict as make_state_dict
    from lska_jax.weights.transfer import transfer_folder as transfer_folder
    from lska_jax.weights.transfer import transfer_kernels as transfer_kernels

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "ModelFacts": "lska_jax.weights.model_facts",
        "export_checkpoint": "lska_jax.weights.export_torch",
        "export_model": "lska_jax.weights.export_jax",
        "import_checkpoint": "lska_jax.weights.import_torch",
        "load_state_dict": "lska_jax.weights.state_dict",
        "make_state_dict": "lska_jax.weights.state_dict",
        "read_facts": "lska_jax.weights.model_folder",
        "read_model_folder": "lska_jax.weights.model_folder",
        "transfer_folder": "lska_jax.weights.transfer",
        "transfer_kernels": "lska_jax.weights.transfer",
        "write_model_folder": "lska_jax.weights.model_folder",
    },
)
