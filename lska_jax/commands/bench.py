"""``lska-jax bench``: measure how many images a second a source gives."""

import argparse
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lska_jax.commands import frame

_DESCRIPTION = """\
Measure how many images a second a source gives.

It reads, decodes, augments and batches as training does, without a model. Compare the figure with
the images/s of the training step on all devices of a host: reading has to be faster. Run it on the
idle host that will train, with the data where it will be; the first pass over files that are not in
the page cache also measures the disk."""

_EXAMPLES = (
    "lska-jax bench digits",
    "lska-jax bench tfds:imagenet2012 --num_workers sweep",
    "lska-jax bench folder:cifar10.tar --crop padded --pad 4 --image_size 32",
)
_SWEEP = "sweep"
_SAMPLED_IMAGES = 32
_VERSIONS_OF = ("grain", "numpy", "pillow", "simplejpeg")


class Speed(NamedTuple):
    """What one measurement found.

    Attributes:
      images_per_second: over the measured time.
      seconds_to_first_batch: from asking for batches to the first one, start of workers included.
    """

    images_per_second: float
    seconds_to_first_batch: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _run, argv)


def measure(
    source: Any,
    transform: Any,
    *,
    batch_size: int,
    num_workers: int,
    seconds: float,
    progress: Any = None,
) -> Speed:
    """Read training batches for some seconds.

    What was read ahead while the workers started is left out of the measured time.

    Args:
      source: from ``lska_jax.data.sources.open_source``.
      transform: a ``lska_jax.data.augment.TrainTransform``.
      batch_size: images a batch.
      num_workers: worker processes; 0 reads with threads.
      seconds: how long to measure; at least one batch is read.
      progress: a tqdm bar over seconds, or None.
    """
    from lska_jax.data.examples import LabelledImages
    from lska_jax.data.loader import READ_AHEAD_BATCHES, train_batches

    started = time.perf_counter()
    batches = train_batches(
        source,
        LabelledImages(transform),
        global_batch_size=batch_size,
        seed=0,
        num_workers=num_workers,
    )
    try:
        next(batches)
        seconds_to_first_batch = time.perf_counter() - started
        for _ in range(READ_AHEAD_BATCHES):
            next(batches)
        started = time.perf_counter()
        count, elapsed = 0, 0.0
        while not count or elapsed < seconds:
            count += len(next(batches)["label"])
            elapsed = time.perf_counter() - started
            if progress is not None:
                progress.set_postfix_str(f"{count / elapsed:,.0f} images/s", refresh=False)
                progress.update(min(elapsed, seconds) - progress.n)
    finally:
        batches.close()
    return Speed(count / elapsed, seconds_to_first_batch)


def workers_to_try(cores: int) -> list[int]:
    """Return the numbers of workers of a sweep: 0, the powers of two below the cores, the cores."""
    powers = [2**exponent for exponent in range(cores.bit_length())]
    return sorted({0, cores, *(power for power in powers if power < cores)})


def _run(arguments: argparse.Namespace) -> None:
    from lska_jax.data.augment import TrainTransform
    from lska_jax.data.loader import default_num_workers
    from lska_jax.data.opening import open_source
    from lska_jax.ops.processor import usable_cores

    cores = usable_cores()
    default = default_num_workers(cores)
    if arguments.num_workers == _SWEEP:
        tried = workers_to_try(cores)
    else:
        tried = [default if arguments.num_workers is None else arguments.num_workers]
    source = open_source(arguments.source, split=arguments.split, data_dir=arguments.data_dir)
    channels = arguments.channels or _channels_of(source)
    transform = TrainTransform(
        image_size=arguments.image_size,
        channels=channels,
        crop=arguments.crop,
        pad=arguments.pad,
        rand_augment="" if arguments.rand_augment == "none" else arguments.rand_augment,
        scaled_decoding=arguments.scaled_decoding,
    )
    print("\n".join(_conditions(source, arguments, channels=channels, cores=cores)), flush=True)
    print(f"\n{'workers':>8} {'images/s':>10} {'first batch':>12}", flush=True)
    for num_workers in tried:
        speed = _measure_with_bar(source, transform, arguments, num_workers=num_workers)
        shown = f"{num_workers:>8} {speed.images_per_second:>10,.0f}"
        shown += f" {speed.seconds_to_first_batch:>10.1f} s"
        notes = ["threads"] if num_workers == 0 else []
        notes += ["default"] if num_workers == default else []
        print(f"{shown}  {', '.join(notes)}".rstrip(), flush=True)


def _measure_with_bar(
    source: Any, transform: Any, arguments: argparse.Namespace, *, num_workers: int
) -> Speed:
    from tqdm import tqdm

    with tqdm(
        total=arguments.seconds,
        desc=f"{num_workers} workers" if num_workers else "threads",
        bar_format="{desc}: {bar} {n:.0f}/{total:.0f} s{postfix}",
        leave=False,
        disable=not sys.stderr.isatty(),
    ) as progress:
        return measure(
            source,
            transform,
            batch_size=arguments.batch_size,
            num_workers=num_workers,
            seconds=arguments.seconds,
            progress=progress,
        )


def _conditions(
    source: Any, arguments: argparse.Namespace, *, channels: int, cores: int
) -> Iterator[str]:
    """Yield lines that say what was measured, on what."""
    heights, widths, sizes = zip(*_sample_sizes(source), strict=True)
    stored = f"{statistics.median(widths):.0f} x {statistics.median(heights):.0f} pixels"
    if known := [size for size in sizes if size]:
        stored += f", {statistics.median(known) / 1024:.1f} KiB"
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS_OF)
    yield f"source    {source.name}: {len(source):,} images, median {stored}"
    yield (
        f"output    {arguments.image_size} x {arguments.image_size} x {channels}, "
        f"crop {arguments.crop}, RandAugment {arguments.rand_augment or 'none'}, "
        f"{'scaled decoding, ' if arguments.scaled_decoding else ''}"
        f"batches of {arguments.batch_size}"
    )
    yield f"machine   {cores} cores ({platform.machine()}), load {load:.1f} at the start"
    yield f"software  Python {platform.python_version()}, {versions}"
    yield f"measured  {arguments.seconds:g} s each, after the first batches"


def _sample_sizes(source: Any) -> Iterator[tuple[int, int, int]]:
    """Yield height, width and bytes (0 if not encoded) of some readable images."""
    import numpy as np

    from lska_jax.data.decode import decode_rgb
    from lska_jax.data.sources import BrokenImage

    found = False
    for index in range(0, len(source), max(1, len(source) // _SAMPLED_IMAGES)):
        image = source[index].image
        try:
            pixels = image if isinstance(image, np.ndarray) else decode_rgb(image)
        except BrokenImage:
            continue
        found = True
        yield pixels.shape[0], pixels.shape[1], 0 if isinstance(image, np.ndarray) else len(image)
    if not found:
        raise ValueError(f"None of the images sampled from {source.name} can be decoded.")


def _channels_of(source: Any) -> int:
    import numpy as np

    image = source[0].image
    return image.shape[2] if isinstance(image, np.ndarray) and image.ndim == 3 else 3


def _count_or_sweep(text: str) -> int | str:
    if text == _SWEEP:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {_SWEEP!r}")
    return int(text)


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax bench", _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("source", metavar="SOURCE", help="digits, folder:PATH or tfds:NAME")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--data_dir", help="where TFDS sets are (default: TFDS's own)")
    parser.add_argument(
        "--image_size", type=frame.positive(int), default=224, help="pixels (default: 224)"
    )
    parser.add_argument(
        "--channels", type=int, choices=(1, 3), help="default: the source's, or 3 for files"
    )
    parser.add_argument(
        "--crop",
        choices=("random_resized", "padded", "none"),
        default="random_resized",
        help="default: random_resized",
    )
    parser.add_argument("--pad", type=int, default=0, help="pixels a side, for --crop padded")
    parser.add_argument(
        "--rand_augment",
        default="rand-m9-mstd0.5-inc1",
        help="as in the config, or none (default: rand-m9-mstd0.5-inc1)",
    )
    parser.add_argument(
        "--scaled_decoding",
        action="store_true",
        help="large JPEG files at 1/2, 1/4 or 1/8 of their sides, as data.scaled_decoding",
    )
    parser.add_argument("--batch_size", type=frame.positive(int), default=128, help="default: 128")
    parser.add_argument(
        "--num_workers",
        type=_count_or_sweep,
        metavar=f"N|{_SWEEP}",
        help="worker processes, 0 for threads (default: what training takes on this machine)",
    )
    parser.add_argument(
        "--seconds", type=frame.positive(float), default=10.0, help="per measurement (default: 10)"
    )
    return parser
