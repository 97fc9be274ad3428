"""Compare the corruptions with the official generator's output on 20 photos, and write a table.

Usage: python tests/robustness/corruptions/check_official_parity.py --golden imagenet_c_official.npz
       --photos FOLDER --frost FOLDER --out docs/robustness/parity.md

The photos and the generator's output on them cannot be part of this repository. The eight
corruptions without chance are compared pixel by pixel on crops of four images. The others are
compared by four statistics of every image: mean, standard deviation, mean absolute difference to
the clean image, and mean absolute difference of vertical neighbours. How far they vary from draw to
draw is estimated from several keys; z is the difference in those standard deviations. Cells that an
earlier run has left beside --out are not run again: delete the .json to begin anew.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from lska_jax.robustness.corruptions import (
    ALL_CORRUPTIONS,
    SEVERITIES,
    corrupt,
    frost_is_comparable,
    load_frost_pictures,
)
from lska_jax.robustness.corruptions.table import corruption_of

CROP = slice(88, 136)
STATISTICS = ("mean", "std", "difference", "gradient")


def load_photo(file: Path) -> np.ndarray:
    """Resize the short side to 256 px (bilinear), cut out the middle 224 x 224 px."""
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def statistics_of(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return (B, 4) float64, in grey levels."""
    images, clean = images.astype(np.float64), clean.astype(np.float64)
    axes = (1, 2, 3)
    return np.stack(
        [
            images.mean(axes),
            images.std(axes),
            np.abs(images - clean).mean(axes),
            np.abs(np.diff(images, axis=1)).mean(axes),
        ],
        axis=1,
    )


def compare_pixels(name: str, severity: int, clean: np.ndarray, golden: np.ndarray) -> list[str]:
    """Return one line of the first table."""
    ours = np.asarray(corrupt(clean, name, severity))[: len(golden), CROP, CROP]
    difference = np.abs(ours.astype(int) - golden.astype(int))
    share = 100 * (difference > 0).mean()
    return [name, str(severity), f"{difference.mean():.4f}", str(difference.max()), f"{share:.2f}"]


def compare_statistics(
    name: str, severity: int, clean: np.ndarray, golden: np.ndarray, keys: int, frost: object
) -> list[str]:
    """Return one line of the second table: official minus ours, pooled over images, and z."""
    drawn = np.stack(
        [
            statistics_of(
                np.asarray(
                    corrupt(clean, name, severity, key=jax.random.key(i), frost_pictures=frost)
                ),
                clean,
            )[: len(golden)]
            for i in range(keys)
        ]
    )
    # The official output is one more draw: its spread and that of our mean add up.
    spread = drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / keys)
    difference = golden - drawn.mean(axis=0)
    pooled = difference.mean(axis=0)
    pooled_z = pooled / (np.sqrt((spread**2).mean(axis=0) / len(golden)))
    single_z = np.sqrt(((difference / np.maximum(spread, 1e-3)) ** 2).mean(axis=0))
    cells = [
        f"{d:+.3f} ({z:+.1f}; {s:.1f})" for d, z, s in zip(pooled, pooled_z, single_z, strict=True)
    ]
    return [name, str(severity), *cells]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Compare everything and write the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--frost", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--names", nargs="+", choices=ALL_CORRUPTIONS, default=ALL_CORRUPTIONS)
    options = parser.parse_args()
    golden = np.load(options.golden)
    clean = np.stack([load_photo(file) for file in sorted(options.photos.glob("*.jpg"))])
    if np.any(clean[:4, CROP, CROP] != golden["clean_crops"]):
        raise ValueError("The photos are not those of the golden file: their clean crops differ.")
    frost = load_frost_pictures(options.frost)
    if not frost_is_comparable(frost):
        raise ValueError(f"The pictures of frost in {options.frost} are not the benchmark's.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, severity in itertools.product(options.names, SEVERITIES):
        cells = read_cells(options.out)
        cell = f"{name}/{severity}"
        if cell in cells:
            continue
        if corruption_of(name).draw is None:
            cells[cell] = compare_pixels(name, severity, clean, golden[f"{cell}/crops"])
        else:
            official = golden[f"{cell}/stats"]
            cells[cell] = compare_statistics(name, severity, clean, official, options.keys, frost)
        print(*cells[cell], flush=True)
        options.out.with_suffix(".json").write_text(json.dumps(cells, indent=1) + "\n")
        options.out.write_text(report(cells, options.keys))


def read_cells(out: Path) -> dict[str, list[str]]:
    """Return the lines that an earlier run has written, by corruption/severity."""
    file = out.with_suffix(".json")
    return json.loads(file.read_text()) if file.exists() else {}


def report(cells: dict[str, list[str]], keys: int) -> str:
    """Return the page: two tables, and what is missing in them."""
    names = [f"{name}/{severity}" for name in ALL_CORRUPTIONS for severity in SEVERITIES]
    lines = [cells[name] for name in names if name in cells]
    pixels = [line for line in lines if corruption_of(line[0]).draw is None]
    stats = [line for line in lines if corruption_of(line[0]).draw is not None]
    missing = [name for name in names if name not in cells]
    text = [
        "# Parity with the official ImageNet-C generator",
        "",
        "Written by `tests/robustness/corruptions/check_official_parity.py`; in grey levels.",
        *(["", f"Not yet run: {', '.join(missing)}."] if missing else []),
        "",
        "## Without chance: pixels of four 48 x 48 crops",
        "",
        table(
            ["Corruption", "Severity", "Mean abs. difference", "Largest", "Values off, %"], pixels
        ),
        "",
        "## With chance: statistics of whole images",
        "",
        f"Official minus ours (mean over images and {keys} keys). In brackets: that in standard "
        "deviations between draws; root mean square over single images of the same. Both are near "
        "1 for draws of one distribution, the second up to several where few keys give a poor "
        "estimate of a single image's spread (frost: 4 keys often draw the same picture twice).",
        "",
        table(["Corruption", "Severity", *STATISTICS], stats),
        "",
    ]
    return "\n".join(text)


if __name__ == "__main__":
    main()
