"""What attention looks at: the large-kernel gate of every block, and attention rollout.

The gate is what LKA and LSKA multiply their input with (arXiv 2309.01439, eq. 6 and figure 2).

Rollout (Abnar and Zuidema, arXiv 2005.00928, section 3) follows where what the head reads comes
from, block by block from the last to the first, with W the mean of the heads' weights:

    r <- r (W + I) / 2

In ViT r begins at the class token (and the distillation token, half of each, where the head takes
their mean), in Swin as the mean over the last stage's pixels, for that is what their heads read.
Swin's windows, shifted ones too, are a matrix W over all pixels of a map that is 0 between
windows: shifting only says which pixels share one, and what the mask forbids has the weight 0. What
padding receives is left out. A merged pixel passes on a quarter to each of its four. MLPs, norms
and values are not followed: the result says where attention goes, not what it carries.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.analysis.intermediates import in_evaluation, inputs_by_name, watched
from lska_jax.models import swin
from lska_jax.models.swin_windows import (
    join_windows,
    relative_bias,
    shift_mask,
    split_into_windows,
    window_weights,
)
from lska_jax.nn.attention import LKA, LSKA, LKATrivial, LSKATrivial
from lska_jax.nn.token_attention import TokenAttention, attention_weights

GATES = (LKA, LSKA, LKATrivial, LSKATrivial)
GATE_SOURCE = "arXiv 2309.01439, eq. 6"
ROLLOUT_SOURCE = "Attention rollout, arXiv 2005.00928, section 3"
# r of what a step returns -> r of what it takes.
_Step = Callable[[Array], Array]


def gate_maps(
    network: Any, images: Float[Array | np.ndarray, "batch height width channels"]
) -> dict[str, Float[Array, "batch _ _ _"]]:
    """Return what every block's large-kernel attention multiplies its input with.

    {path: (B, h, w, C of the block)}, in the order of the blocks.

    Args:
      network: with large-kernel attention, a VAN.
      images: (B, H, W, C), normalised.

    Raises:
      ValueError: the network has no such attention.
    """
    found = inputs_by_name(network, images, of=GATES, read=_factor)
    if not found:
        raise ValueError(
            f"{network!r} has no large-kernel gate; VAN has one in each block (van_lska_tiny)."
        )
    return found


def attention_rollout(
    network: Any, images: Float[Array | np.ndarray, "batch height width channels"]
) -> Float[np.ndarray, "batch rows columns"]:
    """Return how what the head reads is made up of the patches, by attention alone.

    Args:
      network: a ViT, DeiT or Swin.
      images: (B, H, W, C), normalised.

    Returns:
      (B, H / patch, W / patch) float32: shares of at least 0, whose sum is at most 1; the rest is
      that of ViT's other tokens, or of Swin's padding.

    Raises:
      ValueError: a network without attention between tokens.
    """
    is_swin = isinstance(network, swin.Swin)
    if not is_swin and not hasattr(network, "tokens"):
        raise ValueError(
            f"{network!r} does not attend from token to token; rollout is of ViT, DeiT and Swin."
        )
    graph, state = nnx.split(in_evaluation(network))
    return np.asarray(_roll_out(state, jnp.asarray(images, jnp.float32), graph=graph))


@functools.partial(jax.jit, static_argnames="graph")
def _roll_out(state: Any, images: Array, *, graph: Any) -> Array:
    network = nnx.merge(graph, state)
    run = _rollout_of_swin if isinstance(network, swin.Swin) else _rollout_of_vit
    return run(network, images)


def _factor(gate: Any, x: Array) -> Array:
    return gate.factor(x)


def _rollout_of_vit(network: Any, images: Array) -> Array:
    config = network.config
    weights = _weights_of_vit(network, images)
    prefix, size = config.prefix_tokens, config.patch_size
    tokens = weights[0].shape[-1]
    start = (np.arange(tokens) < prefix).astype(np.float32) / prefix
    shares = jnp.broadcast_to(jnp.asarray(start), (len(images), tokens))
    for of_heads in reversed(weights):
        moved = jnp.einsum("bq,bqk->bk", shares, jnp.mean(of_heads, axis=1))
        shares = (moved + shares) * jnp.float32(0.5)
    grid = (images.shape[1] // size, images.shape[2] // size)
    return shares[:, prefix:].reshape(len(images), *grid)


def _weights_of_vit(network: Any, images: Array) -> list[Array]:
    """Return the weights (B, heads, N, N) of every attention of a ViT, inside a trace."""
    found: list[Array] = []

    def keep(_: str, module: Any, x: Array, out: Array) -> Array:
        found.append(attention_weights(module.qkv(x), heads=module.heads))
        return out

    watched(network, keep, is_wanted=lambda _, module: isinstance(module, TokenAttention))(images)
    return found


def _rollout_of_swin(network: Any, images: Array) -> Array:
    steps: list[_Step] = []
    shapes: list[tuple[int, ...]] = []

    def keep(_: str, module: Any, x: Array, out: Array) -> Array:
        shapes.append(out.shape)
        if isinstance(module, swin.Block):
            steps.append(_through_windows(module, x))
        else:
            steps.append(_through_merging(x.shape[1], x.shape[2]))
        return out

    kinds = (swin.Block, swin.PatchMerging)
    watched(network, keep, is_wanted=lambda _, module: isinstance(module, kinds))(images)
    batch, height, width, _ = shapes[-1]
    shares = jnp.full((batch, height, width, 1), 1 / (height * width), jnp.float32)
    for step in reversed(steps):
        shares = step(shares)
    return shares[..., 0]


def _through_windows(block: Any, x: Array) -> _Step:
    """Return the step of a block that was called with x."""
    _, height, width, _ = x.shape
    side, shift = block.windows
    normed = block.norm_1(x)
    mask = None
    if shift:
        normed = jnp.roll(normed, (-shift, -shift), (1, 2))
        mask = shift_mask(height, width, block.windows)
    attention = block.attention
    bias = relative_bias(attention.bias_table[...], attention.side)
    of_heads = window_weights(attention.qkv(split_into_windows(normed, side)), bias, mask)
    weights = jnp.mean(of_heads, axis=2)

    def step(shares: Array) -> Array:
        rolled = jnp.roll(shares, (-shift, -shift), (1, 2))
        moved = jnp.einsum("bnqc,bnqk->bnkc", split_into_windows(rolled, side), weights)
        joined = join_windows(moved, side, height, width)
        return (jnp.roll(joined, (shift, shift), (1, 2)) + shares) * jnp.float32(0.5)

    return step


def _through_merging(height: int, width: int) -> _Step:
    """Return the step of a merging of four pixels in one, of a map of that size."""

    def step(shares: Array) -> Array:
        spread = jnp.repeat(jnp.repeat(shares, 2, axis=1), 2, axis=2) * jnp.float32(0.25)
        return spread[:, :height, :width]

    return step
