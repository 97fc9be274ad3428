"""Photos for ``benchmarks.fine_tuning``: three classes of 200 images each, drawn by a seed.

``near``: cats, frogs and ships of CIFAR-10's *test* split. The model in the box was trained on
CIFAR-10's training images: it knows these classes, and none of these images.

``far``: handwritten 3s, 5s and 8s on cut-outs of scikit-learn's two photographs, in any colour. It
knows neither. Test images have digits that are held out, and the right quarter of the photographs.
"""

import io
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from lska_jax.data.digit_scenes import photographs
from lska_jax.data.digits import DigitsSource

CLASSES = 3
NEAR_CLASSES = ("cat", "frog", "ship")
FAR_DIGITS = (3, 5, 8)
SIDE = 32
# Of the test images, which every seed has.
_TEST_SEED = 12345
_SMALLEST_DIGIT, _LARGEST_DIGIT = 18, 28
_LEAST_CONTRAST = 70


def write_near(archive: Path, root: Path, *, seed: int, each: int, held_out: int) -> None:
    """Write ``ROOT/train/CLASS`` and ``ROOT/test/CLASS`` from a tar of CIFAR-10's class folders.

    Args:
      archive: with ``test/CLASS/NAME`` in it.
      root: folder to write.
      seed: of the training images; the test images are the same for all.
      each: training images of a class.
      held_out: test images of a class.
    """
    found = defaultdict(list)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and "test" in parts and parts[-2] in NEAR_CLASSES:
                file = tar.extractfile(member)
                assert file is not None  # a file it is
                found[parts[-2]].append((member.name, file.read()))
    for name in NEAR_CLASSES:
        images = [content for _, content in sorted(found[name])]
        order = np.random.default_rng(_TEST_SEED).permutation(len(images))
        tested, others = order[:held_out], order[held_out:]
        trained = np.random.default_rng(seed).permutation(others)[:each]
        for split, chosen in (("train", trained), ("test", tested)):
            for n in chosen.tolist():
                with Image.open(io.BytesIO(images[n])) as image:
                    _save(image.convert("RGB"), root / split / name / f"{n:04}.png")


def write_far(root: Path, *, seed: int, each: int, held_out: int) -> None:
    """Write digits on photographs; arguments are those of ``write_near``."""
    for split, count, own_seed in (("train", each, seed), ("test", held_out, _TEST_SEED)):
        source = DigitsSource(split)
        rng = np.random.default_rng(own_seed)
        for digit in FAR_DIGITS:
            tiles = [source[n].image[..., 0] for n in np.flatnonzero(source.labels == digit)]
            for n in range(count):
                image = _draw(tiles[int(rng.integers(len(tiles)))], split, rng)
                _save(Image.fromarray(image), root / split / f"digit_{digit}" / f"{n:04}.png")


def _draw(tile: np.ndarray, split: str, rng: np.random.Generator) -> np.ndarray:
    """Return a digit of one colour, somewhere on a part of a photograph."""
    parts = photographs(split)
    photo = parts[int(rng.integers(len(parts)))]
    zoom = SIDE * int(rng.integers(1, 4))
    left, top = (int(rng.integers(extent - zoom + 1)) for extent in photo.size)
    cut = photo.crop((left, top, left + zoom, top + zoom))
    ground = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    side = int(rng.integers(_SMALLEST_DIGIT, _LARGEST_DIGIT + 1))
    enlarged = Image.fromarray(tile).resize((side, side), Image.Resampling.BILINEAR)
    ink = np.zeros((SIDE, SIDE, 1), np.float32)
    row, column = (int(rng.integers(SIDE - side + 1)) for _ in range(2))
    ink[row : row + side, column : column + side, 0] = np.asarray(enlarged, np.float32) / 255
    colour = rng.integers(256, size=3).astype(np.float32)
    while abs(float(colour.mean() - ground.mean())) < _LEAST_CONTRAST:
        colour = rng.integers(256, size=3).astype(np.float32)
    return np.rint(ground * (1 - ink) + colour * ink).astype(np.uint8)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
