"""The named models as facts: sizes, and what each expects of its images.

No jax here: ``list_models`` and the check of a config cost nothing.
"""

import dataclasses
import difflib
import fnmatch
from typing import NamedTuple


class Preprocessing(NamedTuple):
    """How images have to be prepared for a model.

    Attributes:
      mean: of each channel, for pixels in [0, 1].
      std: of each channel, for pixels in [0, 1].
      image_size: side of the square crop, in pixels.
      crop_pct: image_size over the short side that the image is resized to.
      interpolation: filter of that resize.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_size: int = 224
    crop_pct: float = 0.9
    interpolation: str = "bicubic"

    def for_channels(self, in_channels: int) -> "Preprocessing":
        """Return the same for images of another number of channels.

        One channel takes the mean over the channels, several repeat them in turn.
        """
        if in_channels == len(self.mean):
            return self

        def adapted(values: tuple[float, ...]) -> tuple[float, ...]:
            if in_channels == 1:
                return (sum(values) / len(values),)
            return tuple(values[channel % len(values)] for channel in range(in_channels))

        return self._replace(mean=adapted(self.mean), std=adapted(self.std))


class Size(NamedTuple):
    """Channels, blocks and FFN expansion of the four stages."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    ffn_ratios: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One named model.

    Attributes:
      name: ``van_{attention}_{size}``.
      attention: key of ``lska_jax.models.van.ATTENTIONS``.
      size: stages of the network.
      preprocessing: of the reference classification models. Their mean and std are 0.5, not
        ImageNet's: the wrong one costs accuracy silently.
    """

    name: str
    attention: str
    size: Size
    preprocessing: Preprocessing = Preprocessing()


ATTENTION_NAMES = ("lska", "lka", "lska_trivial", "lka_trivial")

# VAN, arXiv 2202.09741, table 2; B4 to B6 from its code.
SIZES = {
    "tiny": Size((32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4)),
    "small": Size((64, 128, 320, 512), (2, 2, 4, 2), (8, 8, 4, 4)),
    "base": Size((64, 128, 320, 512), (3, 3, 12, 3), (8, 8, 4, 4)),
    "large": Size((64, 128, 320, 512), (3, 5, 27, 3), (8, 8, 4, 4)),
    "b4": Size((64, 128, 320, 512), (3, 6, 40, 3), (8, 8, 4, 4)),
    "b5": Size((96, 192, 480, 768), (3, 3, 24, 3), (8, 8, 4, 4)),
    "b6": Size((96, 192, 384, 768), (6, 6, 90, 6), (8, 8, 4, 4)),
}

_ENTRIES = {
    f"van_{attention}_{size}": ModelEntry(
        name=f"van_{attention}_{size}", attention=attention, size=SIZES[size]
    )
    for attention in ATTENTION_NAMES
    for size in SIZES
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern such as ``van_lska_*``."""
    return [name for name in _ENTRIES if fnmatch.fnmatchcase(name, pattern)]


def model_entry(name: str) -> ModelEntry:
    """Return a named model's facts, its preprocessing among them.

    Raises:
      ValueError: no model has this name; the message suggests the closest.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(str(name), _ENTRIES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else "See lska_jax.list_models()."
    raise ValueError(f"Unknown model {name!r}. {hint}")
