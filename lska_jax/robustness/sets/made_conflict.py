"""Cue conflicts made from clean images: the layout of one image, the surface of another class's.

Geirhos' 1,280 stimuli (``cue_conflict``) show 16 classes at 224 pixels, and a model of other
classes knows few of them. Any labelled images give as many stimuli as there are images, in the
model's own classes. Two ways, both without a network and without anything to tune:

- "patches": the texture image's patches, laid where their luminance fits the shape image's. The
  correspondence of luminances is that of texture transfer (Efros and Freeman, SIGGRAPH 2001,
  section 3), the swap of overlapping patches, each the nearest one, and their mean that of Chen and
  Schmidt's style swap (arXiv 1612.04337, section 3.1), which takes features of a network for it.
- "fourier": the shape image's phases with the texture image's amplitudes, colour by colour
  (Oppenheim and Lim, Proc. IEEE 69, 1981; in classifiers Chen et al., arXiv 2108.08487).

What they measure is not Geirhos' shape bias, whose textures come from a style transfer that people
were shown too. Patches carry colours and what fits into an eighth of the side, and the layout of
light and dark is what is left of the shape. Amplitudes carry how much there is of each frequency
and orientation: hardly what a person calls a texture.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from lska_jax.data.class_counts import labels_of
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.sources import BrokenImage, Record, Source, check_index
from lska_jax.robustness.cells import Cell, Outcomes
from lska_jax.robustness.scores.scorer import ClassSubset, ScoredCell, Scorer
from lska_jax.robustness.scores.shape_bias import ShapeBias, shape_bias_per_class
from lska_jax.robustness.sets.cue_conflict import bias_scores
from lska_jax.robustness.sets.layouts import Layout
from lska_jax.robustness.sets.record import ImageSet, Opened, OwnClasses

NAME = "made_conflict"
# Photos are made smaller before: their stimuli are for networks that see 224 pixels.
LARGEST_SIDE = 256
SMALLEST_SIDE = 8
# Of a side: a patch, the step between two that are laid, the step between two to choose from.
_PATCH, _STEP, _CANDIDATES = 8, 16, 32
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow has it

Pixels = UInt8[np.ndarray, "side side 3"]


def swap_patches(shape: Pixels, texture: Pixels) -> Pixels:
    """Lay patches of one image where their luminance fits another's.

    The shape image's luminances are given the distribution of the texture image's, by rank. Each
    of its patches is replaced by the texture image's with the least squared difference of
    luminance, the first of equals; where patches overlap, the mean counts, in which a patch weighs
    less towards its edges, so that they do not show.

    Args:
      shape: whose layout is kept.
      texture: whose pixels are laid, of the same size.
    """
    side = len(shape)
    size, step, apart = (max(1, side // share) for share in (_PATCH, _STEP, _CANDIDATES))
    light, wanted = _luminance(texture), _luminance(shape)
    ranks = np.argsort(np.argsort(wanted, axis=None, kind="stable"), kind="stable")
    wanted = np.sort(light, axis=None)[ranks].reshape(wanted.shape)
    lit = _windows(light, size)[::apart, ::apart].reshape(-1, size * size)
    coloured = _windows(texture, size)[::apart, ::apart].reshape(-1, 3, size, size)
    places = [*range(0, side - size, step), side - size]
    needed = _windows(wanted, size)[np.ix_(places, places)].reshape(-1, size * size)
    # Whole numbers below 2^53: the same choice on every machine.
    chosen = np.argmin((lit * lit).sum(axis=1) - 2 * needed @ lit.T, axis=1)
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1
    weights = np.outer(ramp, ramp)[..., None]
    total, weight = np.zeros((side, side, 3)), np.zeros((side, side, 1))
    corners = ((y, x) for y in places for x in places)
    for (y, x), patch in zip(corners, coloured[chosen], strict=True):
        total[y : y + size, x : x + size] += weights * patch.transpose(1, 2, 0)
        weight[y : y + size, x : x + size] += weights
    return np.rint(total / weight).astype(np.uint8)


def swap_amplitudes(shape: Pixels, texture: Pixels) -> Pixels:
    """Return the image with the phases of one image and the amplitudes of another.

    Args:
      shape: whose phases are kept.
      texture: whose amplitudes are taken, of the same size; values beyond 0 to 255 are cut off.
    """
    phases = np.angle(np.fft.fft2(shape.astype(np.float64), axes=(0, 1)))
    amplitudes = np.abs(np.fft.fft2(texture.astype(np.float64), axes=(0, 1)))
    made = np.fft.ifft2(amplitudes * np.exp(1j * phases), axes=(0, 1)).real
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


WAYS: Mapping[str, Callable[[Pixels, Pixels], Pixels]] = {
    "patches": swap_patches,
    "fourier": swap_amplitudes,
}


class MadeConflicts:
    """One stimulus for each image of a source: its shape, the texture of an image of another class.

    Which image that is follows from the seed and the image's place alone: each other class is as
    likely, and each image of it.

    Attributes:
      labels: (N,) int32, the class of the shape.
      textures: (N,) int32, the class of the texture.
    """

    def __init__(
        self, source: Source, way: str, *, seed: int = 0, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Choose the textures.

        Args:
          source: images with one class each.
          way: of ``WAYS``.
          seed: of the choice.
          max_pixels: an image file of more is broken.

        Raises:
          ValueError: an unknown way, or fewer than two classes that have images.
        """
        if way not in WAYS:
            raise ValueError(f"There is no way {way!r} to make conflicts; allowed: {list(WAYS)}.")
        self.labels = np.asarray(labels_of(source), np.int32)
        members = {int(of): np.flatnonzero(self.labels == of) for of in np.unique(self.labels)}
        members.pop(-1, None)  # broken ones
        if len(members) < 2:
            raise ValueError(
                f"{source.name} has images of {len(members)} class(es); conflicts of shape and "
                "texture need at least two. Give images of more classes."
            )
        self.name = f"{way} of {source.name}"
        self.class_names = source.class_names
        self._source, self._way, self._max_pixels = source, way, max_pixels
        self._donors = np.array(
            [_draw(members, int(own), (seed, n)) for n, own in enumerate(self.labels)], np.int64
        )
        self.textures = self.labels[self._donors]

    def __len__(self) -> int:
        """Return the number of stimuli."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Return stimulus ``index``, square, (S, S, 3) uint8, and the class of its shape.

        Raises:
          BrokenImage: one of its two images cannot be decoded, or the shape's is too small.
        """
        return Record(WAYS[self._way](*self.pair(index)), int(self.labels[index]))

    def pair(self, index: int) -> tuple[Pixels, Pixels]:
        """Return what stimulus ``index`` is made of: its shape's image and its texture's, square.

        Raises:
          BrokenImage: as for the stimulus.
        """
        check_index(index, len(self), self.name)
        shape = self._pixels(index)
        side = min(*shape.shape[:2], LARGEST_SIDE)
        if side < SMALLEST_SIDE:
            raise BrokenImage(f"{side} pixels are too few for a conflict ({SMALLEST_SIDE})")
        return _square(shape, side), _square(self._pixels(int(self._donors[index])), side)

    def path(self, index: int) -> str:
        """Return the texture's image and, last, the shape's."""
        check_index(index, len(self), self.name)
        donor = self._source.path(int(self._donors[index]))
        return f"{donor} in the shape of {self._source.path(index)}"

    def _pixels(self, index: int) -> np.ndarray:
        from PIL import Image

        from lska_jax.data.decode import pixels_of

        pixels = pixels_of(self._source[index].image, max_pixels=self._max_pixels)
        grey = pixels.ndim == 2 or pixels.shape[2] == 1
        image = Image.fromarray(pixels.reshape(pixels.shape[:2]) if grey else pixels)
        return np.asarray(image.convert("RGB"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeConflictScorer(Scorer):
    """Shape bias, of decisions between all classes of a model."""

    headlines: tuple[str, ...] = ("shape_bias", "decided")
    is_by_part: bool = True

    def score_cell(
        self,
        cell: Cell,
        outcomes: Outcomes,
        *,
        labels: np.ndarray,
        extra: Mapping[str, np.ndarray],
        shapes: Sequence[str],
        subsets: Sequence[ClassSubset],
    ) -> ScoredCell:
        """Score all stimuli; see ``Scorer``."""
        decisions, textures = outcomes.prediction[:, 0], extra["texture"]
        # Logits that are not finite decide for one class more, which follows neither cue.
        undecided = 1 + int(max(decisions.max(), labels.max(), textures.max()))
        counts = shape_bias_per_class(
            np.where(decisions < 0, undecided, decisions),
            labels,
            textures,
            num_classes=undecided + 1,
        )
        whole = ShapeBias(*(sum(of) for of in zip(*counts, strict=True)))
        return ScoredCell(bias_scores(whole), {})


def _make(clean: Source, part: str, *, seed: int, max_pixels: int) -> Opened:
    made = MadeConflicts(clean, part, seed=seed, max_pixels=max_pixels)
    return made, {"texture": made.textures}


def _draw(members: Mapping[int, np.ndarray], own: int, seed: tuple[int, int]) -> int:
    """Return the position of an image of another class."""
    rng = np.random.default_rng(seed)
    others = [of for of in members if of != own]
    of_class = members[others[rng.integers(len(others))]]
    return int(of_class[rng.integers(len(of_class))])


def _square(pixels: np.ndarray, side: int) -> np.ndarray:
    if pixels.shape[:2] == (side, side):
        return pixels
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels)
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels @ np.array(_LUMINANCE))


def _windows(image: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))


MADE_CONFLICT = ImageSet(
    name=NAME,
    title="Made cue conflict",
    label_space="those of the clean images",
    parts=tuple(WAYS),
    citation="Made here. Patches after Efros and Freeman, Image Quilting for Texture Synthesis and "
    "Transfer, SIGGRAPH 2001, and Chen and Schmidt, Fast Patch-based Style Transfer of Arbitrary "
    "Style, arXiv 1612.04337; Fourier after Oppenheim and Lim, The Importance of Phase in Signals, "
    "Proc. IEEE 69, 1981",
    license="that of the clean images",
    where="https://arxiv.org/abs/1612.04337",
    download_gb=0.0,
    num_images=50_000,  # as the clean images of ImageNet; of others as many as there are
    layout="nothing: made from the clean images",
    note="no published numbers: patches and amplitudes stand for texture",
    places=lambda cell: Layout((), (), "the clean images", wraps=False),
    make=_make,
    scorer=MadeConflictScorer(),
    own=OwnClasses(NAME, MadeConflictScorer()),
)
