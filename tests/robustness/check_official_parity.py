"""Compare the corruptions with the official generator's output on 20 photos, and write a table.

Usage: python tests/robustness/check_official_parity.py --golden imagenet_c_official.npz
       --photos FOLDER --frost FOLDER --out docs/robustness/parity.md

The photos and the generator's output on them cannot be part of this repository. The eight
corruptions without chance are compared pixel by pixel on crops of four images. The others are
compared by four statistics of every image: mean, standard deviation, mean absolute difference to
the clean image, and mean absolute difference of vertical neighbours. How far they vary from draw to
draw is estimated from several keys; z is the difference in those standard deviations.
"""

import argparse
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
    options = parser.parse_args()
    golden = np.load(options.golden)
    clean = np.stack([load_photo(file) for file in sorted(options.photos.glob("*.jpg"))])
    if np.any(clean[:4, CROP, CROP] != golden["clean_crops"]):
        raise ValueError("The photos are not those of the golden file: their clean crops differ.")
    frost = load_frost_pictures(options.frost)
    if not frost_is_comparable(frost):
        raise ValueError(f"The pictures of frost in {options.frost} are not the benchmark's.")
    pixels, stats = [], []
    for name in ALL_CORRUPTIONS:
        for severity in SEVERITIES:
            cell = f"{name}/{severity}"
            if corruption_of(name, severity).draw is None:
                pixels.append(compare_pixels(name, severity, clean, golden[f"{cell}/crops"]))
                print(*pixels[-1], flush=True)
            else:
                stats.append(
                    compare_statistics(
                        name, severity, clean, golden[f"{cell}/stats"], options.keys, frost
                    )
                )
                print(*stats[-1], flush=True)
    text = [
        "# Parity with the official ImageNet-C generator",
        "",
        "Written by `tests/robustness/check_official_parity.py`; in grey levels.",
        "",
        "## Without chance: pixels of four 48 x 48 crops",
        "",
        table(["Corruption", "Severity", "Mean |difference|", "Largest", "Pixels off, %"], pixels),
        "",
        "## With chance: statistics of whole images",
        "",
        f"Official minus ours (mean over images and {options.keys} keys). In brackets: that in "
        "standard deviations between draws; root mean square over single images of the same. "
        "Both are near 1 for draws of one distribution.",
        "",
        table(["Corruption", "Severity", *STATISTICS], stats),
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()
