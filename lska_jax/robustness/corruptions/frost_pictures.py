"""Pictures of frost: the benchmark's own from a folder, or synthetic crystals.

The corruption lays photographs of frosted windows over an image. The benchmark's six files
(``frost1.png`` to ``frost3.png``, ``frost4.jpg`` to ``frost6.jpg`` beside its generator,
arXiv 1903.12261) are not part of this library. Without them crystals are drawn here, always the
same ones; what is measured on those is not comparable with ImageNet-C, and says so.
"""

import dataclasses
import functools
import hashlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import ImageFile

from lska_jax.data.image_file import read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.sources import BrokenImage
from lska_jax.robustness.corruptions.filters import REFERENCE_SIZE, filter_matrix, gaussian_weights

OFFICIAL, OTHER, SYNTHETIC = "official", "other", "synthetic"

# Name and SHA-256 of the benchmark's files, in its order.
OFFICIAL_FILES = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
    "frost6.jpg": "1f92b2f48408748085b68dd81d816ef239f42cef3029c25d041fcb6760fb4f25",
}
# The generator draws one of the first five of its six pictures.
_DRAWN_BY_THE_GENERATOR = 5
_SYNTHETIC_COUNT = 6
_SYNTHETIC_SIZE = 448
_SUFFIXES = {".png", ".jpg", ".jpeg"}


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["pixels"], meta_fields=["sizes", "source"]
)
@dataclasses.dataclass(frozen=True)
class FrostPictures:
    """Pictures of frost, filled up with zeros to one size.

    Attributes:
      pixels: (N, H, W, 3) uint8.
      sizes: height and width of each picture.
      source: "official" (the benchmark's files), "other" (files of another content or number, or a
        plain array) or "synthetic".
    """

    pixels: UInt8[Array | np.ndarray, "count height width 3"]
    sizes: tuple[tuple[int, int], ...]
    source: str


def frost_is_comparable(pictures: FrostPictures | None) -> bool:
    """Return whether frost made of these pictures may stand beside the benchmark's numbers."""
    return pictures is not None and pictures.source == OFFICIAL


def load_frost_pictures(folder: str | Path) -> FrostPictures:
    """Load the pictures of a folder: the benchmark's six by their names, else all PNG and JPEG.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has no PNG or JPEG file, or one that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder of frost pictures at {folder}.")
    files = [folder / name for name in OFFICIAL_FILES]
    source = OFFICIAL
    if not all(file.is_file() for file in files):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
        source = OTHER
    if not files:
        raise ValueError(
            f"{folder} holds no PNG or JPEG file; put the benchmark's pictures of frost there: "
            f"{', '.join(OFFICIAL_FILES)}."
        )
    if source == OFFICIAL:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        source = OFFICIAL if hashes == list(OFFICIAL_FILES.values()) else OTHER
    return _stacked([_read(file) for file in files], source)


def as_frost_pictures(pictures: "FrostPictures | Array | np.ndarray | None") -> FrostPictures:
    """Return pictures as they are, an array (N, H, W, 3) uint8 as "other", None as crystals.

    Raises:
      ValueError: an array of another shape or dtype.
    """
    if pictures is None:
        return synthetic_frost_pictures()
    if isinstance(pictures, FrostPictures):
        return pictures
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(
            f"frost_pictures is {pictures.dtype}{list(pictures.shape)}; give what "
            "load_frost_pictures returns, or a uint8 array (number, height, width, 3)."
        )
    count, height, width, _ = pictures.shape
    return FrostPictures(pictures, ((height, width),) * count, OTHER)


def cut_windows(
    pictures: FrostPictures,
    uniforms: Float[Array, "batch 3"],
    *,
    height: int,
    width: int,
    use_all: bool,
) -> Float[Array, "batch height width 3"]:
    """Cut a random window of a random picture for each image.

    The window has the image's shape and 224 px on its shorter side, less where a picture is too
    small, and is resized to the image by linear interpolation: at 224 px it is the picture's own
    pixels.

    Args:
      pictures: what to cut from.
      uniforms: (B, 3) in [0, 1): picture, top, left.
      height: of the image.
      width: of the image.
      use_all: whether to draw one of all pictures, instead of one of all but the last of six.
    """
    sizes = pictures.sizes
    if not use_all:
        sizes = sizes[: max(_DRAWN_BY_THE_GENERATOR, 1)]
    enlarged = min(
        REFERENCE_SIZE / min(height, width),
        min(h for h, _ in sizes) / height,
        min(w for _, w in sizes) / width,
    )
    window = max(int(height * enlarged), 1), max(int(width * enlarged), 1)
    which = jnp.floor(uniforms[:, 0] * len(sizes)).astype(jnp.int32)
    rooms = jnp.asarray([(h - window[0], w - window[1]) for h, w in sizes], jnp.float32)[which]
    corners = jnp.floor(uniforms[:, 1:] * rooms).astype(jnp.int32)
    pixels = jnp.asarray(pictures.pixels)

    def cut(one: tuple[Array, Array]) -> UInt8[Array, "window_height window_width 3"]:
        index, corner = one
        start = (index, corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(pixels, start, (1, *window, 3))[0]

    windows = jax.lax.map(cut, (which, corners)).astype(jnp.float32) / 255.0
    if window == (height, width):
        return windows
    shape = (windows.shape[0], height, width, 3)
    return jax.image.resize(windows, shape, "linear", precision=jax.lax.Precision.HIGHEST)


@functools.cache
def synthetic_frost_pictures() -> FrostPictures:
    """Draw six pictures of ice needles that branch at 60 degrees, always the same."""
    pictures = [_draw_crystals(np.random.default_rng(seed)) for seed in range(_SYNTHETIC_COUNT)]
    return _stacked(pictures, SYNTHETIC)


def _read(file: Path) -> np.ndarray:
    try:
        # Pillow alone, as the benchmark reads them: other decoders round differently.
        return read_image(read_plain_file(file), _to_rgb, max_pixels=MAX_PIXELS)
    except (OSError, BrokenImage) as error:
        raise ValueError(f"The frost picture {file} cannot be read: {error}.") from error


def _to_rgb(picture: ImageFile.ImageFile) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def _stacked(pictures: list[np.ndarray], source: str) -> FrostPictures:
    sizes = tuple((picture.shape[0], picture.shape[1]) for picture in pictures)
    largest = max(h for h, _ in sizes), max(w for _, w in sizes)
    pixels = np.zeros((len(pictures), *largest, 3), np.uint8)
    for target, picture in zip(pixels, pictures, strict=True):
        target[: picture.shape[0], : picture.shape[1]] = picture
    return FrostPictures(pixels, sizes, source)


def _draw_crystals(rng: np.random.Generator) -> np.ndarray:
    """Return (448, 448, 3) uint8: white needles over blue-grey haze."""
    size = _SYNTHETIC_SIZE
    light = np.zeros((size, size))
    for _ in range(55):
        start = rng.uniform(0, size, 2)
        _grow_needle(light, start, rng.uniform(0, 2 * math.pi), rng.uniform(60, 200), 3, rng)
    fine = _blurred(light, 0.8)
    glow = _blurred(light, 6.0)
    haze = np.zeros((size, size))
    for scale in (6.0, 16.0, 40.0):
        haze += scale * _blurred(rng.standard_normal((size, size)), scale)
    haze = (haze - haze.min()) / (haze.max() - haze.min())
    white = np.clip(0.25 + 0.4 * haze + 0.45 * np.tanh(0.4 * fine) + 0.2 * np.tanh(glow), 0, 1)
    blue = np.asarray([0.55, 0.75, 0.95])
    colours = white[..., None] * (white[..., None] + (1 - white[..., None]) * blue)
    return (np.clip(colours, 0, 1) * 255).astype(np.uint8)


def _grow_needle(
    light: np.ndarray,
    start: np.ndarray,
    angle: float,
    length: float,
    generations: int,
    rng: np.random.Generator,
) -> None:
    """Add a line of light that fades along its length, and branches on both of its sides."""
    direction = np.asarray([math.sin(angle), math.cos(angle)])
    along = np.arange(0, length, 0.5)
    places = np.round(start + along[:, None] * direction).astype(int)
    inside = np.all((places >= 0) & (places < len(light)), axis=1)
    strength = (1 - along / length) * generations
    np.add.at(light, tuple(places[inside].T), strength[inside])
    if generations == 1:
        return
    for distance in np.arange(4, 0.9 * length, rng.uniform(5, 9)):
        for side in (-1, 1):
            branch = (length - distance) * rng.uniform(0.2, 0.4)
            turned = angle + side * math.pi / 3
            _grow_needle(light, start + distance * direction, turned, branch, generations - 1, rng)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    matrix = filter_matrix(
        gaussian_weights(sigma, truncate=3.0), picture.shape[0], border="reflect"
    )
    return matrix @ picture @ matrix.T
