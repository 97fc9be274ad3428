"""What the networks of all families share: from maps to logits, blocks, rates of drop path."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.build import abstract_model
from lska_jax.models.config import NetworkConfig
from lska_jax.models.maps import FeatureInfo, FeatureInfos, named_maps, stage_maps
from lska_jax.models.table import family_of
from lska_jax.nn.dense import Dense
from lska_jax.nn.functional import one_program, parameters
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.ops.plain_numbers import plain_int
from lska_jax.ops.platform import target_platform


class Network(nnx.Module):
    """A network of some family, whose own class adds ``features`` and the modules.

    Args:
      config: architecture and computation.

    Attributes:
      config: the same.
      preprocessing: how images have to be prepared: the family's, or that of the weights.
      classifier: the last layer; None if there are no classes.
      global_pool: how ``forward_head`` pools, in timm's words; "" leaves features as they are.
    """

    classifier: Any
    global_pool = "avg"

    def __init__(self, config: NetworkConfig):
        self.config: Any = config
        self.preprocessing = family_of(config).preprocessing.for_channels(config.in_channels)

    @property
    def feature_info(self) -> FeatureInfos:
        """What ``features`` returns, map by map; found by tracing, without computing anything."""
        config = self.config
        side = math.lcm(family_of(config).image_multiple(vars(config)), 64)
        while side < config.least_side:
            side *= 2
        images = jax.ShapeDtypeStruct((1, side, side, config.in_channels), jnp.float32)
        graph, state = nnx.split(self)
        maps = jax.eval_shape(
            lambda state, images: nnx.merge(graph, state).features(images), state, images
        )
        return FeatureInfos(
            FeatureInfo(name, found.shape[-1], side // found.shape[1] if found.ndim == 4 else None)
            for name, found in maps._asdict().items()
        )

    @property
    def num_features(self) -> int:
        """Channels of the last map; timm's name."""
        return self.feature_info[-1].channels

    @property
    def head_hidden_size(self) -> int:
        """Channels of what the classifier takes; timm's name."""
        with_one = abstract_model(dataclasses.replace(self.config, num_classes=1))
        return int(with_one.classifier.in_features)

    @property
    def num_classes(self) -> int:
        """Size of the logits, 0 without a classifier; timm's name."""
        return int(self.config.num_classes)

    def get_classifier(self) -> Any:
        """Return the last layer, or all of them where there are several; timm's name."""
        found = tuple(getattr(self, name) for name in _classifiers(self.config))
        return found if len(found) > 1 and None not in found else found[0]

    def forward_features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Array:
        """Return the last map, unpooled, as ``forward_head`` takes it; timm's name.

        Normalised where timm's is: of ViT and Swin.

        Args:
          images: as ``features`` takes them.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        last: Array = self.features(images, rngs=rngs)[-1]
        return last

    def forward_head(
        self, features: Float[Array, "batch ..."], *, pre_logits: bool = False
    ) -> Float[Array, "batch ..."]:
        """Return logits, or what the classifier takes: pooled features; timm's name.

        Args:
          features: from ``forward_features``.
          pre_logits: return the pooled features, as a model of ``num_classes=0`` does.

        Returns:
          Float32 (B, num_classes) or (B, C); with ``global_pool=""`` maps or tokens, not pooled.
        """
        if not self.global_pool:
            return self.unpooled(features)
        if not pre_logits:
            return self.head(features)
        without = nnx.merge(*nnx.split(self))
        for name in _classifiers(self.config):
            setattr(without, name, nnx.data(None))
        return without.head(features)

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, *, rngs: RngsLike = 0
    ) -> None:
        """Put a fresh classifier for other classes in place of the last layer; timm's name.

        Args:
          num_classes: size of the logits; 0 makes the model return pooled features.
          global_pool: see ``choose_pooling``; None leaves it.
          rngs: source of its initial parameters.

        Raises:
          ValueError: as ``choose_pooling``; the model is as it was.
        """
        self.choose_pooling(global_pool, num_classes=num_classes)
        with_one = abstract_model(dataclasses.replace(self.config, num_classes=1))
        rngs = as_rngs(rngs)
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        for name in _classifiers(self.config):
            if getattr(with_one, name) is not None:
                channels = getattr(with_one, name).in_features
                setattr(self, name, make_classifier(channels, self.config, rngs=rngs))

    def choose_pooling(self, global_pool: str | None, *, num_classes: int) -> None:
        """Pool features over pixels, or leave them as they are, as timm's ``global_pool`` says.

        Args:
          global_pool: the family's own, "avg" or of a ViT "token"; or "", with which a model
            without classes returns what ``unpooled`` makes of its last map. None leaves it.
          num_classes: that the model is to have.

        Raises:
          ValueError: another pooling, or classes without one.
        """
        own = type(self).global_pool
        allowed = (own, "") if self._may_be_unpooled else (own,)
        chosen = self.global_pool if global_pool is None else global_pool
        if chosen not in allowed:
            raise ValueError(
                f"global_pool={chosen!r}: {type(self).__name__} takes "
                f"{' or '.join(map(repr, allowed))}."
            )
        if not chosen and num_classes:
            raise ValueError(
                f"global_pool='' leaves features unpooled, and a classifier of {num_classes} "
                f"classes takes pooled ones. Give num_classes=0, or global_pool={own!r}."
            )
        self.global_pool = chosen

    @property
    def _may_be_unpooled(self) -> bool:
        return True

    def __repr__(self) -> str:
        """Return the network in a few words; ``nnx.display`` shows every array."""
        count = sum(array.size for array in parameters(self).values())
        return (
            f"{type(self).__name__}({family_of(self.config).describe(self.config)}, "
            f"{count:,} parameters, {self.config.dtype})"
        )

    # nnx's own shows the whole tree.
    __str__ = __repr__

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, ...]:
        """Return the maps by name, see ``maps``; the last is what ``head`` takes."""
        raise NotImplementedError

    def head(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch outputs"]:
        """Return logits (B, num_classes), or pooled features if num_classes is 0, in float32.

        Args:
          features: the last of ``features()``.
        """
        pooled = self.pool(features)
        return pooled if self.classifier is None else self.classifier(pooled)

    def pool(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch channels"]:
        """Return the mean over pixels in float32."""
        return jnp.mean(features, axis=(1, 2), dtype=jnp.float32)

    def unpooled(self, features: Float[Array, "batch ..."]) -> Float[Array, "batch ... channels"]:
        """Return what is pooled before the classifier: the map of ``forward_features``, in float32.

        Args:
          features: from ``forward_features``.
        """
        return features.astype(jnp.float32)

    def local_logits(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch rows columns outputs"]:
        """Return what ``head`` makes of each place of the last map, in float32.

        Args:
          images: as ``features`` takes them.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        last = self.features(images, rngs=rngs)[-1]
        batch, height, width, channels = last.shape
        logits = self.head(last.reshape(batch * height * width, 1, 1, channels))
        return logits.reshape(batch, height, width, logits.shape[-1])

    @one_program
    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch ..."]:
        """Return float32 logits (B, num_classes), or features if there are no classes.

        Args:
          images: (B, H, W, in_channels), normalised, of sizes that ``features`` takes. Outside of
            ``jax.jit`` the call is one program, compiled for each shape.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        if not self.global_pool:
            return self.unpooled(self.forward_features(images, rngs=rngs))
        return self.head(self.features(images, rngs=rngs)[-1])


class FeatureNetwork(nnx.Module):
    """A network whose call returns maps in place of logits, as dense prediction takes them.

    They are the maps with a stride: the last tokens of a ViT are none, as in timm.

    Args:
      network: of any family.
      out_indices: places of the maps that are wanted, negative ones from the end; a number n for
        the last n; None is all.

    Raises:
      ValueError: an index that is none of its maps.
      TypeError: no sequence of whole numbers.
    """

    def __init__(self, network: Network, out_indices: Sequence[int] | int | None = None):
        infos = [info for info in network.feature_info if info.stride is not None]
        indices: Any = range(len(infos)) if out_indices is None else out_indices
        if isinstance(indices, int) and not isinstance(indices, bool):
            indices = range(-indices, 0)
        names = ", ".join(info.name for info in infos)
        advice = f"the network has {len(infos)} maps, {names}; give a list of numbers from 0 to "
        advice += f"{len(infos) - 1}."
        try:
            places = [plain_int("a map's place", index) for index in indices]
        except TypeError as error:
            raise TypeError(f"out_indices={indices!r} ({error}): {advice}") from None
        if not places or not all(-len(infos) <= place < len(infos) for place in places):
            raise ValueError(f"out_indices={out_indices}: {advice}")
        self.network = network
        self.out_indices = tuple(range(len(infos))[place] for place in places)
        # nnx takes any tuple to be a tree, and only plain ones are.
        self._infos = tuple(infos[index] for index in self.out_indices)

    @property
    def feature_info(self) -> FeatureInfos:
        """What the maps are that are wanted."""
        return FeatureInfos(self._infos)

    @one_program
    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, ...]:
        """Return the maps that are wanted, by name; arguments as ``Network.features``."""
        maps = self.network.features(images, rngs=rngs)
        return named_maps(
            {
                info.name: maps[index]
                for index, info in zip(self.out_indices, self._infos, strict=True)
            }
        )


def _classifiers(config: NetworkConfig) -> list[str]:
    """Return the names of a network's last layers."""
    return [*dict.fromkeys(path.split("/")[0] for path in family_of(config).head)]


def make_classifier(channels: int, config: NetworkConfig, *, rngs: nnx.Rngs) -> Any:
    """Return the float32 layer from pooled features to logits, or None if there are no classes."""
    classes = config.num_classes
    return nnx.data(Dense(channels, classes, rngs=rngs) if classes else None)


def make_dropout(config: Any, *, rngs: nnx.Rngs) -> Any:
    """Return a dropout of the config's ``drop_rate``, or None for a rate of 0."""
    return nnx.data(nnx.Dropout(config.drop_rate, rngs=rngs) if config.drop_rate else None)


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the rate of every block by stage, linear from 0 over all blocks.

    Args:
      last: of the last block.
      depths: blocks of each stage.
    """
    step = last / max(sum(depths) - 1, 1)
    blocks = itertools.count()
    return [[step * next(blocks) for _ in range(depth)] for depth in depths]


class Stage(nnx.Module):
    """Blocks of one width, one after the other.

    Args:
      blocks: see ``run_blocks``.
      remat: recompute them in the backward pass; on CPU what ``NetworkConfig`` says.
    """

    def __init__(self, blocks: Iterable[nnx.Module], *, remat: bool):
        self.blocks = nnx.List(blocks)
        self.remat = remat

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        return run_blocks(self.blocks, x, remat=self.remat, rngs=rngs)


def run_stages(
    stages: Sequence[Any],
    x: Array,
    *,
    transitions: Sequence[Any] = (),
    rngs: nnx.Rngs | None,
) -> Any:
    """Return the map of every stage, named stage1 and so on.

    Args:
      stages: called as ``stage(x, rngs=rngs)``.
      x: what the first takes.
      transitions: from each stage to the next, where they are no part of it.
      rngs: keys for dropout and drop path.
    """
    maps: list[Array] = []
    for index, stage in enumerate(stages):
        if index and len(transitions):
            x = transitions[index - 1](x)
        x = stage(x, rngs=rngs)
        maps.append(x)
    return stage_maps(maps)


def run_blocks(
    blocks: Iterable[nnx.Module], x: Array, *, remat: bool, rngs: nnx.Rngs | None
) -> Array:
    """Return what blocks make of x, one after the other.

    Args:
      blocks: called as ``block(x, rngs)``.
      x: maps or tokens.
      remat: recompute each in the backward pass (on CPU XLA would do so at once, and keep it all).
      rngs: keys for dropout and drop path.
    """
    for block in blocks:
        call: Any = type(block).__call__
        x = (nnx.remat(call) if remat and target_platform() != "cpu" else call)(block, x, rngs)
    return x
