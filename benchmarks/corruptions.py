"""Time the corruptions against the published generator: ``python -m benchmarks.corruptions``.

All 19 corruptions at severities 1 to 5 on 224 px images. Both sides take uint8 and give uint8, and
run alternately in one process on the same cores.

- JAX: ``lska_jax.robustness.corruptions.corrupt``, compiled, a batch of 32 with a key an image.
- generator: the NumPy, SciPy, scikit-image and OpenCV functions that made ImageNet-C, as packaged
  in ``imagecorruptions`` (see benchmarks/official_generator.py), one image after another. The
  libraries use as many threads as they like; most of its time is one thread's. It is left out where
  the package is not installed.

The ratio that counts is that of the sums over all corruptions. Glass blur is the largest part of
the generator's sum, so the ratio without it is given, too.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lska_jax.running import door

NAME = "corruptions"
OURS, GENERATOR = "JAX", "generator"
GLASS = "glass_blur"

_PACKAGES = ("imagecorruptions", "scipy", "scikit-image", "opencv-python-headless")
_EXPECTED = "three minutes on two quiet cores, most of them for compiling and for the generator"


class Setting(NamedTuple):
    """What is measured.

    Attributes:
      names: the corruptions.
      severities: the severities.
      size: side of the images in pixels.
      batch_size: images in one call of ours.
      generator_images: images in one call of the generator.
      repetitions: of both.
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    size: int
    batch_size: int
    generator_images: int
    repetitions: int


def full_setting() -> Setting:
    """Return what is claimed: everything at 224 px."""
    from lska_jax.robustness.corruptions import ALL_CORRUPTIONS, SEVERITIES

    return Setting(ALL_CORRUPTIONS, SEVERITIES, 224, 32, 2, 5)


QUICK = Setting(("contrast", GLASS), (1,), 32, 2, 1, 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    folder = results.output_folder(options)
    setting = QUICK if options.quick else full_setting()
    result = results.write_result(
        folder,
        NAME,
        conditions={
            **conditions,
            **results.versions_of(_PACKAGES),
            "setting": setting._asdict(),
            "dtype": "uint8",
        },
        rows=list(_measure(setting)),
        is_quick=options.quick,
    )
    for table in tables(result).values():
        print(f"\n{table}")


def _measure(setting: Setting) -> Iterator[dict[str, Any]]:
    from benchmarks import harness, official_generator
    from benchmarks.progress import Progress

    generator = official_generator.load() if official_generator.is_installed() else None
    images = photo_like_images(setting.batch_size, setting.size)
    progress = Progress(len(setting.names) * len(setting.severities))
    for name in setting.names:
        for severity in setting.severities:
            progress.begin(f"{name} {severity}")
            calls = {OURS: _ours(images, name, severity)}
            counts = {OURS: setting.batch_size}
            if generator is not None:
                few = images[: setting.generator_images]
                calls[GENERATOR] = _generated(few, generator[name], severity)
                counts[GENERATOR] = len(few)
            timings = harness.measure_alternately(
                calls,
                seconds_each=0.0,
                min_repetitions=setting.repetitions,
                fewer={GENERATOR: setting.repetitions} if generator is not None else None,
                show=progress.show,
            )
            for contender, timing in timings.items():
                yield {
                    "corruption": name,
                    "severity": severity,
                    "contender": contender,
                    "images": counts[contender],
                    **dataclasses.asdict(timing),
                }
            progress.end()
    progress.close()


def photo_like_images(count: int, size: int) -> Any:
    """Return (count, size, size, 3) uint8: noise whose power falls with the frequency squared."""
    import numpy as np

    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.standard_normal((count, 3, size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    planes = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / size), (size, size))
    planes = 0.5 + 0.2 * planes / planes.std(axis=(2, 3), keepdims=True)
    return np.uint8(np.clip(planes.transpose(0, 2, 3, 1), 0, 1) * 255)


def _ours(images: Any, name: str, severity: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    from lska_jax.robustness.corruptions import corrupt, synthetic_frost_pictures

    on_device = jnp.asarray(images)
    keys = jax.random.split(jax.random.key(0), len(images))
    pictures = jax.tree.map(jnp.asarray, synthetic_frost_pictures())
    return lambda: corrupt(on_device, name, severity, keys=keys, frost_pictures=pictures)


def _generated(images: Any, function: Callable[..., Any], severity: int) -> Callable[[], Any]:
    import numpy as np
    from PIL import Image

    pictures = [Image.fromarray(image) for image in images]
    return lambda: [np.uint8(function(picture, severity)) for picture in pictures]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table of milliseconds an image, mean over severities, and the sums."""
    from benchmarks.results import NOT_YET_RUN, markdown_table

    cells: dict[str, dict[str, list[float]]] = {}
    for row in result["rows"]:
        times = cells.setdefault(row["corruption"], {}).setdefault(row["contender"], [])
        times.append(1e3 * row["seconds"] / row["images"])
    means = {
        name: {who: sum(times) / len(times) for who, times in cell.items()}
        for name, cell in cells.items()
    }
    lines = [_line(name, cell) for name, cell in means.items()]
    for title, left_out in (("all together", ""), ("all but glass_blur", GLASS)):
        kept = [cell for name, cell in means.items() if name != left_out]
        everyone = set.intersection(*(set(cell) for cell in kept)) if kept else set()
        lines.append(_line(title, {who: sum(cell[who] for cell in kept) for who in everyone}))
    header = ["Corruption", "JAX, ms an image", "generator, ms an image", "JAX is faster by"]
    return {NAME: markdown_table(header, lines) if lines else NOT_YET_RUN}


def _line(title: str, cell: dict[str, float]) -> list[str]:
    from benchmarks.results import NOT_YET_RUN

    ours, theirs = cell.get(OURS), cell.get(GENERATOR)
    shown = [NOT_YET_RUN if t is None else f"{t:,.2f}" for t in (ours, theirs)]
    return [title, *shown, f"{theirs / ours:.1f}" if ours and theirs else NOT_YET_RUN]


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
