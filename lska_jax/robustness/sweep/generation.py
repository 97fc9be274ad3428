"""Corrupted images made during a sweep: which draws an image gets, and what is not comparable."""

import zlib

import jax
from jaxtyping import Array, Int, UInt8

from lska_jax.robustness.corruptions import corrupt, frost_is_comparable, load_frost_pictures


class Generator:
    """Corrupts batches of clean images.

    An image's draws depend on the seed, the corruption, the severity and its position in the data
    set: not on the batch it is in, nor on the model.
    """

    def __init__(self, frost_pictures: str, *, seed: int):
        """Prepare.

        Args:
          frost_pictures: folder of the official pictures; "" draws crystals instead.
          seed: of all draws.

        Raises:
          ValueError: the folder does not hold the pictures.
        """
        self._key = jax.random.key(seed)
        self._frost = load_frost_pictures(frost_pictures) if frost_pictures else None

    def __call__(
        self,
        images: UInt8[Array, "batch height width 3"],
        name: str,
        severity: int,
        *,
        positions: Int[Array, " batch"],
    ) -> UInt8[Array, "batch height width 3"]:
        """Return corrupted images.

        Args:
          images: (B, H, W, 3).
          name: of the corruption.
          severity: 1 to 5.
          positions: (B,) int32, of the images in their data set.
        """
        cell = zlib.crc32(f"{name}/{severity}".encode())
        keys = _keys(jax.random.fold_in(self._key, cell), positions)
        return corrupt(images, name, severity, keys=keys, frost_pictures=self._frost)

    def note(self, name: str) -> str:
        """Return what makes a corruption not comparable with official numbers, or ""."""
        if name == "frost" and not frost_is_comparable(self._frost):
            return "synthetic frost pictures: not comparable"
        return ""


@jax.jit
def _keys(key: jax.Array, positions: Int[Array, " batch"]) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
