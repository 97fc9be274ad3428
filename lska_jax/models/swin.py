"""The Swin Transformer (arXiv 2103.14030): attention within windows that move from block to block.

Reads windows -> attention -> block -> stage -> model; the config is in ``swin_config``. Images and
maps are NHWC. At any image size it computes what timm's ``dynamic_img_size`` network does; other
codes differ from that at sizes other than the config's.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.maps import stage_maps
from lska_jax.models.swin_config import FAMILY, SwinConfig, Windows
from lska_jax.nn.dense import KERNEL_STD, MLP, Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import DropPath, LayerNorm, StridedConv

LAYER_NORM_EPSILON = 1e-5
MLP_RATIO = 4
# Added to the logits of pixels that must not see each other.
MASKED = -100.0


def split_into_windows(
    maps: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch windows pixels channels"]:
    """Cut maps (B, H, W, C), padded with zeros at bottom and right, into windows (B, N, side^2, C).

    Windows and the pixels of a window are in rows.
    """
    batch, height, width, channels = maps.shape
    rows, columns = -(-height // side), -(-width // side)
    padding = ((0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0))
    cut = jnp.pad(maps, padding).reshape(batch, rows, side, columns, side, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, side**2, channels)


def join_windows(
    windows: Float[Array, "batch windows pixels channels"], side: int, height: int, width: int
) -> Float[Array, "batch height width channels"]:
    """Undo ``split_into_windows`` for maps of a height and width."""
    batch, *_, channels = windows.shape
    rows, columns = -(-height // side), -(-width // side)
    cut = windows.reshape(batch, rows, columns, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


@functools.lru_cache(maxsize=64)
def shift_mask(
    height: int, width: int, windows: Windows
) -> Float[np.ndarray, "windows pixels pixels"]:
    """Return what is added to the logits of shifted windows: pixels from both ends are strangers.

    A map that was rolled has its first rows behind its last ones, and alike its columns.

    Args:
      height: of the maps.
      width: of the maps.
      windows: of the stage.

    Returns:
      (N, side^2, side^2) float32: 0 where two pixels of a window are neighbours, else ``MASKED``.
    """

    def regions(length: int) -> np.ndarray:
        padded = -(-length // windows.side) * windows.side
        # Two cuts: where the last window begins, and where what was rolled does.
        cuts = np.array([[padded - windows.side], [padded - windows.shift]])
        return np.sum(np.arange(padded) >= cuts, axis=0)

    region = 3 * regions(height)[:, None] + regions(width)
    rows, columns = (n // windows.side for n in region.shape)
    cut = region.reshape(rows, windows.side, columns, windows.side).transpose(0, 2, 1, 3)
    of_pixels = cut.reshape(rows * columns, windows.side**2)
    is_same = of_pixels[:, :, None] == of_pixels[:, None, :]
    return np.where(is_same, 0.0, MASKED).astype(np.float32)


def relative_bias(
    table: Float[Array, "distances heads"], side: int
) -> Float[Array, "heads pixels pixels"]:
    """Return the bias of each pair of pixels of a window, from that of each distance.

        bias[h, (i, j), (k, l)] = table[(i - k + side - 1, j - l + side - 1), h]

    Slices in place of a gather, whose gradient would be a scatter: slow on CPU and TPU, and summed
    in any order on GPU.

    Args:
      table: ((2 side - 1)^2, heads), rows of distances.
      side: of the windows.

    Returns:
      (heads, side^2 of the query, side^2 of the key).
    """
    span, heads = 2 * side - 1, table.shape[1]
    # Turned round, distances grow with the key's place.
    turned = table[::-1].T.reshape(heads, span, span)
    starts = range(side - 1, -1, -1)
    rows = jnp.stack([turned[:, start : start + side] for start in starts], axis=1)
    both = jnp.stack([rows[..., start : start + side] for start in starts], axis=2)
    return both.reshape(heads, side**2, side**2)


class WindowAttention(nnx.Module):
    """Attention of several heads within windows, with a learned bias of each distance."""

    def __init__(
        self, channels: int, heads: int, windows: Windows, config: SwinConfig, *, rngs: nnx.Rngs
    ):
        self.qkv = Dense(channels, 3 * channels, dtype=config.dtype, rngs=rngs)
        self.bias_table = nnx.Param(
            normal(KERNEL_STD)(rngs.params(), ((2 * windows.side - 1) ** 2, heads), jnp.float32)
        )
        self.project = Dense(channels, channels, dtype=config.dtype, rngs=rngs)
        self.heads = heads
        self.side = windows.side

    def __call__(
        self,
        x: Float[Array, "batch windows pixels channels"],
        *,
        mask: Float[np.ndarray, "windows pixels pixels"] | None = None,
    ) -> Float[Array, "batch windows pixels channels"]:
        """Map windows (B, N, P, C) to the same shape; the mask (N, P, P) is added to the logits."""
        batch, count, pixels, channels = x.shape
        size = channels // self.heads
        query, key, value = jnp.moveaxis(
            self.qkv(x).reshape(batch, count, pixels, 3, self.heads, size), 3, 0
        )
        # The query is scaled, not the logits: there XLA's CPU backend would read the factor from an
        # array as large as they are.
        query = (query.astype(jnp.float32) * size**-0.5).astype(query.dtype)
        logits = jnp.einsum("bnphc,bnqhc->bnhpq", query, key, preferred_element_type=jnp.float32)
        logits = logits + relative_bias(self.bias_table[...], self.side)[None, None]
        if mask is not None:
            logits = logits + mask[None, :, None]
        weights = jax.nn.softmax(logits).astype(value.dtype)
        mixed = jnp.einsum("bnhpq,bnqhc->bnphc", weights, value)
        return self.project(mixed.reshape(x.shape))


class Block(nnx.Module):
    """x + DropPath(Attention(LN(x))), then x + DropPath(MLP(LN(x)))."""

    def __init__(
        self,
        channels: int,
        heads: int,
        windows: Windows,
        config: SwinConfig,
        *,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        def norm() -> LayerNorm:
            return LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs)

        self.norm_1 = norm()
        self.attention = WindowAttention(channels, heads, windows, config, rngs=rngs)
        self.norm_2 = norm()
        self.mlp = MLP(
            channels,
            channels * MLP_RATIO,
            drop_rate=config.drop_rate,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.dropout = nnx.data(dropout(config, rngs))
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)
        self.windows = windows

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        branch = self._attend(self.norm_1(x))
        if self.dropout is not None:
            branch = self.dropout(branch, rngs=rngs)
        x = x + self.drop_path(branch, rngs=rngs)
        return x + self.drop_path(self.mlp(self.norm_2(x), rngs=rngs), rngs=rngs)

    def _attend(self, x: Array) -> Array:
        _, height, width, _ = x.shape
        side, shift = self.windows
        mask = None
        if shift:
            x = jnp.roll(x, (-shift, -shift), (1, 2))
            mask = shift_mask(height, width, self.windows)
        out = self.attention(split_into_windows(x, side), mask=mask)
        out = join_windows(out, side, height, width)
        return jnp.roll(out, (shift, shift), (1, 2)) if shift else out


class PatchMerging(nnx.Module):
    """Four pixels in one: LN of their channels, and a linear layer without bias."""

    def __init__(self, in_channels: int, channels: int, config: SwinConfig, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(
            4 * in_channels, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )
        self.reduction = Dense(
            4 * in_channels, channels, use_bias=False, dtype=config.dtype, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, ceil(H / 2), ceil(W / 2), C)."""
        batch, height, width, channels = x.shape
        rows, columns = -(-height // 2), -(-width // 2)
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, rows, 2, columns, 2, channels)
        # The order of the four (row, column): (0, 0), (1, 0), (0, 1), (1, 1).
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, rows, columns, 4 * channels)
        return self.reduction(self.norm(x))


class PatchEmbedding(nnx.Module):
    """A convolution of disjoint patches, and LN."""

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        patch = config.patch_size
        # A spread of 1 / sqrt(3 fan_in), that of PyTorch's default, which the authors keep here.
        initial = normal((3 * config.in_channels * patch**2) ** -0.5)
        self.projection = StridedConv(
            config.in_channels,
            config.dims[0],
            kernel_size=patch,
            stride=patch,
            padding=0,
            kernel_init=initial,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(
            config.dims[0], epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )
        self.dropout = nnx.data(dropout(config, rngs))

    def __call__(
        self,
        images: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, H / patch_size, W / patch_size, C)."""
        x = self.norm(self.projection(images))
        return x if self.dropout is None else self.dropout(x, rngs=rngs)


class Stage(nnx.Module):
    """Patch merging, except in the first; blocks, of which every second one shifts its windows."""

    def __init__(
        self,
        stage: int,
        config: SwinConfig,
        *,
        drop_path_rates: Sequence[float],
        rngs: nnx.Rngs,
    ):
        channels, windows = config.dims[stage], config.windows_of(stage)
        merging = None
        if stage:
            merging = PatchMerging(config.dims[stage - 1], channels, config, rngs=rngs)
        self.merging = nnx.data(merging)
        self.blocks = nnx.List(
            Block(
                channels,
                config.heads[stage],
                windows if number % 2 else windows._replace(shift=0),
                config,
                drop_path_rate=rate,
                rngs=rngs,
            )
            for number, rate in enumerate(drop_path_rates)
        )
        self.remat = config.remat

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return the stage's map."""
        run_block = nnx.remat(Block.__call__) if self.remat else Block.__call__
        if self.merging is not None:
            x = self.merging(x)
        for block in self.blocks:
            x = run_block(block, x, rngs)
        return x


class Swin(nnx.Module):
    """Swin Transformer.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.

    Attributes:
      preprocessing: how images have to be prepared; the reference's, or that of the pretrained
        weights.
    """

    def __init__(self, config: SwinConfig, *, rngs: RngsLike):
        rngs = as_rngs(rngs)
        total = sum(config.depths)
        rates = iter([config.drop_path_rate * i / max(total - 1, 1) for i in range(total)])
        self.config = config
        self.preprocessing = FAMILY.preprocessing.for_channels(config.in_channels)
        self.patch_embedding = PatchEmbedding(config, rngs=rngs)
        self.stages = nnx.List(
            Stage(stage, config, drop_path_rates=[next(rates) for _ in range(depth)], rngs=rngs)
            for stage, depth in enumerate(config.depths)
        )
        self.norm = LayerNorm(
            config.dims[-1], epsilon=LAYER_NORM_EPSILON, dtype=jnp.float32, rngs=rngs
        )
        classifier = None
        if config.num_classes:
            classifier = Dense(config.dims[-1], config.num_classes, rngs=rngs)
        self.classifier = nnx.data(classifier)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """Return the map of every stage, named stage1 and so on, as its last block leaves it.

        Args:
          images: (B, H, W, in_channels), normalised; height and width are multiples of the config's
            ``patch_size``.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank, number of channels, or size.

        Returns:
          One (B, ceil(H / s), ceil(W / s), dims[i]) a stage in the compute dtype, with
          s = 4, 8, 16, 32 at the paper's patch size.
        """
        check_images(images, self.config)
        maps = []
        x = self.patch_embedding(jnp.asarray(images, self.config.dtype), rngs=rngs)
        for stage in self.stages:
            x = stage(x, rngs=rngs)
            maps.append(x)
        return stage_maps(maps)

    def head(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch outputs"]:
        """Return logits (B, num_classes), or pooled features if num_classes is 0, in float32.

        Args:
          features: the last of ``features()``.
        """
        pooled = jnp.mean(self.norm(features), axis=(1, 2), dtype=jnp.float32)
        return pooled if self.classifier is None else self.classifier(pooled)

    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Return float32 logits (B, num_classes), or pooled features if num_classes is 0.

        Args:
          images: as ``features`` takes them.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        return self.head(self.features(images, rngs=rngs)[-1])


def dropout(config: SwinConfig, rngs: nnx.Rngs) -> nnx.Dropout | None:
    """Return a dropout of the config's rate; None for a rate of 0."""
    return nnx.Dropout(config.drop_rate, rngs=rngs) if config.drop_rate else None
