"""Time the input pipeline against timm's on one core: ``python -m benchmarks.reading``.

One photo after another, from the bytes of its JPEG file to the pixels that a batch holds: decoding
alone; the training recipe (random resized crop, flip, RandAugment, both filters); evaluation (short
side 248, centre 224, bicubic). The process keeps to one core, and the contenders take turns.

- ours: ``lska_jax.data.augment``; with scaled decoding, ``data.scaled_decoding=True``, too.
- timm: ``timm.data.create_transform`` with the same settings, on what Pillow decodes. It is left
  out where timm is not installed.

The photos are the two that come with scikit-learn, upright and lying, in the size of ImageNet's and
in those of cameras, which are enlarged here and compress a little better than others.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lska_jax.running import door

NAME = "reading"
OURS, SCALED, TIMM = "ours", "ours, scaled decoding", "timm"
DECODING, TRAINING, EVALUATION = "decoding alone", "training recipe", "evaluation"
IMAGENET_SIZE = (500, 375)

_EXPECTED = "two minutes on one quiet core"
_PACKAGES = ("pillow", "simplejpeg", "timm", "torchvision")
_RECIPE = "rand-m9-mstd0.5-inc1"
_IMAGE_SIZE, _CROP_PCT = 224, 0.9
_QUALITY = 90
_MEAN = (0.485, 0.456, 0.406)
# Of PIL.ImageOps.posterize.
_NO_BITS = "bits must be between"


class Setting(NamedTuple):
    """What is measured.

    Attributes:
      sizes: width and height of the photos that lie.
      pixels: that one sample decodes, about.
      repetitions: samples of each.
    """

    sizes: tuple[tuple[int, int], ...]
    pixels: int
    repetitions: int


FULL = Setting((IMAGENET_SIZE, (2000, 1500), (4000, 3000)), 40_000_000, 9)
QUICK = Setting(((100, 75),), 30_000, 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    if not options.quick and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    setting = QUICK if options.quick else FULL
    result = results.write_result(
        folder,
        NAME,
        conditions={**conditions, "packages": results.versions_of(_PACKAGES), "dtype": "uint8"},
        rows=list(_measure(setting)),
        is_quick=options.quick,
    )
    print(f"\n{tables(result)[NAME]}")


def _measure(setting: Setting) -> Iterator[dict[str, Any]]:
    from benchmarks import harness
    from benchmarks.progress import Progress

    progress = Progress(len(setting.sizes) * 3)
    for size in setting.sizes:
        files = photos(size)
        rounds = max(1, setting.pixels // (size[0] * size[1] * len(files)))
        for what, contenders in _contenders().items():
            progress.begin(f"{what}, {size[0]} x {size[1]}")
            calls = {name: _each(call, files * rounds) for name, call in contenders.items()}
            timings = harness.measure_alternately(
                calls,
                seconds_each=0.0,
                min_repetitions=setting.repetitions,
                show=progress.show,
            )
            for name, timing in timings.items():
                yield {
                    "what": what,
                    "width": size[0],
                    "height": size[1],
                    "contender": name,
                    "images": len(files) * rounds,
                    **dataclasses.asdict(timing),
                }
            progress.end()
    progress.close()


def _contenders() -> dict[str, dict[str, Callable[[bytes], Any]]]:
    """Return what is compared, and for each of it contender -> what it makes of one file."""
    import numpy as np
    from PIL import Image

    from lska_jax.data.augment import EvalTransform, TrainTransform
    from lska_jax.data.decode import decode_rgb

    train, scaled = (
        TrainTransform(
            image_size=_IMAGE_SIZE, rand_augment=_RECIPE, mean=_MEAN, scaled_decoding=is_scaled
        )
        for is_scaled in (False, True)
    )
    # Each draws its own crops and operations, a thousand or more.
    rngs = [np.random.default_rng(0) for _ in range(2)]
    made: dict[str, dict[str, Callable[[bytes], Any]]] = {
        DECODING: {OURS: decode_rgb},
        TRAINING: {
            OURS: lambda data: train(data, rngs[0]),
            SCALED: lambda data: scaled(data, rngs[1]),
        },
        EVALUATION: {OURS: EvalTransform(image_size=_IMAGE_SIZE, crop_pct=_CROP_PCT)},
    }
    if importlib.util.find_spec("timm") is None:
        print("timm is not installed, so nothing is compared with it: pip install '.[bench]'.")
        return made
    create = importlib.import_module("timm.data").create_transform

    def opened(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    # With a prefetcher timm's transforms end in uint8 too, and normalise on the device.
    common = {"interpolation": "bicubic", "mean": _MEAN, "use_prefetcher": True}
    trains = create(
        _IMAGE_SIZE,
        is_training=True,
        auto_augment=_RECIPE,
        **{**common, "interpolation": "random"},
    )
    evaluates = create(_IMAGE_SIZE, is_training=False, crop_pct=_CROP_PCT, **common)

    def drawn(image: Image.Image) -> Any:
        while True:
            try:
                return trains(image)
            except ValueError as error:
                # One image in a thousand is to be posterised to no bit at all, which timm leaves
                # to Pillow, and recent versions of that refuse. It is drawn anew.
                if _NO_BITS not in str(error):
                    raise

    made[DECODING][TIMM] = lambda data: np.asarray(opened(data))
    made[TRAINING][TIMM] = lambda data: drawn(opened(data))
    made[EVALUATION][TIMM] = lambda data: evaluates(opened(data))
    return made


def _each(call: Callable[[bytes], Any], files: list[bytes]) -> Callable[[], None]:
    def run() -> None:
        for data in files:
            call(data)

    return run


@functools.cache
def photos(size: tuple[int, int]) -> list[bytes]:
    """Return JPEG files of two photos, lying and upright, of this width and height."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    files = []
    for pixels in load_sample_images().images:
        lying = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        for image in (lying, lying.transpose(Image.Transpose.ROTATE_90)):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=_QUALITY)
            files.append(file.getvalue())
    return files


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table of images a second, and ours over timm."""
    from benchmarks.results import NOT_YET_RUN, markdown_table

    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in result["rows"]:
        key = (row["what"], f"{row['width']} x {row['height']}")
        cells.setdefault(key, {})[row["contender"]] = row["images"] / row["seconds"]
    lines = []
    for (what, size), speeds in cells.items():
        timm = speeds.get(TIMM)
        for name in (OURS, SCALED):
            if name not in speeds:
                continue
            ratio = f"{speeds[name] / timm:.2f}" if timm else NOT_YET_RUN
            shown = f"{timm:,.0f}" if timm else NOT_YET_RUN
            is_scaled = name == SCALED
            label = f"{what}, scaled decoding" if is_scaled else what
            lines.append([size, label, f"{speeds[name]:,.0f}", shown, ratio])
    header = ["Photos", "", "ours, images/s", "timm, images/s", "ours over timm"]
    return {NAME: markdown_table(header, lines) if lines else NOT_YET_RUN}


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
