"""Models for inference: the same outputs with fewer operations."""

from typing import Any

from flax import nnx

from lska_jax.models.table import family_of, load, load_capability


def fold_batch_norm(model: Any) -> Any:
    """Return a model for inference with the same outputs and fewer operations.

    BatchNorm, layer scale and whatever else is linear at inference goes into the layers beside it,
    by the rule of the model's family.

    Args:
      model: of any family that has something to fold; its running statistics are taken as they
        are, whatever its mode. It is left as it was.

    Returns:
      A model of the same interface, without dropout and drop path. Outputs equal those of
      ``model.eval()`` up to float32 rounding, or bfloat16's at that compute dtype. It is not for
      training, and its arrays are not those of a checkpoint.

    Raises:
      ValueError: the model is folded already, or its family has nothing to fold.
    """
    family = family_of(model)
    fold = load_capability(family, "fold")
    if type(model) is not load(family.network):
        raise ValueError("The model is folded already; fold the model that it was made from.")
    folded = fold(model)
    folded.global_pool = model.global_pool
    return folded


def fold_for_inference(model: Any) -> Any:
    """Return a model folded where its family can be, and in evaluation mode.

    Args:
      model: of any family, not folded; it is left as it was.
    """
    if family_of(model).fold:
        return fold_batch_norm(model)
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
