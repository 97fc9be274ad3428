"""Draw all corruptions of some images: ``python -m lska_jax.robustness.corruptions IMAGE...``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lska_jax.robustness.corruptions import (
    ALL_CORRUPTIONS,
    SEVERITIES,
    frost_is_comparable,
    load_frost_pictures,
)
from lska_jax.robustness.corruptions.sheet import sample_sheet


def main(argv: Sequence[str] | None = None) -> None:
    """Crop the images to squares, corrupt them, write the sheet."""
    parser = argparse.ArgumentParser(
        "python -m lska_jax.robustness.corruptions", description=__doc__
    )
    parser.add_argument("images", type=Path, nargs="+", help="files; row i shows the i-th, in turn")
    parser.add_argument("--out", type=Path, required=True, help="the sheet: a PNG file")
    parser.add_argument("--size", type=int, default=224, help="side of the square crop in pixels")
    parser.add_argument("--tile", type=int, default=112, help="side of a tile on the sheet")
    parser.add_argument("--corruption", nargs="+", choices=ALL_CORRUPTIONS, default=ALL_CORRUPTIONS)
    parser.add_argument("--severity", type=int, nargs="+", choices=SEVERITIES, default=SEVERITIES)
    parser.add_argument("--frost", type=Path, help="folder of the benchmark's pictures of frost")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    pictures = load_frost_pictures(options.frost) if options.frost else None
    if "frost" in options.corruption and not frost_is_comparable(pictures):
        print("The frost is not the benchmark's: not comparable.")
    side = (options.size, options.size)
    images = []
    for file in options.images:
        with Image.open(file) as photo:
            images.append(ImageOps.fit(photo.convert("RGB"), side))
    sheet = sample_sheet(
        np.stack([np.asarray(image) for image in images]),
        names=options.corruption,
        severities=options.severity,
        tile_size=options.tile,
        seed=options.seed,
        frost_pictures=pictures,
    )
    sheet.save(options.out)
    print(f"Wrote {options.out}.")


if __name__ == "__main__":
    main()
