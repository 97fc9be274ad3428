"""Cut the fixture imagenet_c_crops.npz out of the official generator's output on 20 photos.

Usage: python tests/robustness/corruptions/make_crops_fixture.py OFFICIAL.npz FOLDER_OF_PHOTOS

Pixels 96 to 127 of both axes of the first two images (so that the blocks of JPEG and of pixelation
begin at the crop's corner), and the means of the clean images, which contrast needs.
"""

import sys
from pathlib import Path

import numpy as np
from check_official_parity import load_photo

INNER = slice(8, 40)
COUNT = 2
CELLS = {
    "brightness": (1, 2, 3, 4, 5),
    "contrast": (1, 2, 3, 4, 5),
    "saturate": (1, 2, 3, 4, 5),
    "gaussian_blur": (1, 2, 3),
    "defocus_blur": (1, 2, 3, 4, 5),
    "jpeg_compression": (1, 2, 3, 4, 5),
    "pixelate": (2, 5),
}


def main() -> None:
    golden = np.load(sys.argv[1])
    photos = [load_photo(file) for file in sorted(Path(sys.argv[2]).glob("*.jpg"))[:COUNT]]
    out = {
        "clean": golden["clean_crops"][:COUNT, INNER, INNER],
        "means": np.stack([photo.mean(axis=(0, 1)) for photo in photos]),
    }
    for name, severities in CELLS.items():
        for severity in severities:
            out[f"{name}/{severity}"] = golden[f"{name}/{severity}/crops"][:COUNT, INNER, INNER]
    np.savez_compressed(Path(__file__).with_name("imagenet_c_crops.npz"), **out)


if __name__ == "__main__":
    main()
