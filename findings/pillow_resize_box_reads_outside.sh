#!/usr/bin/env bash
# Pillow's resize(size, box=...) against crop(box).resize(size).
#
# Versions: pillow 13.0.0, numpy 2.3.5, 2026-11 (12.0.0 does the same).
# Expected by most: that `box` is the region that is scaled, so that it saves the copy of crop() and gives
#   the same pixels. The box has whole numbers here, and nothing outside of it was asked for.
# Seen: the filter reads pixels outside of the box, as far as it reaches. A white square on black comes out
#   white from crop and resize; with the box its border is grey, down to 143 of 255 with the bilinear
#   filter. At four pixels a side three quarters of them differ. Only the filter BOX gives the same.
# What helps: crop first where the reference does, as torchvision's and timm's random crops do; take `box` for
#   a part of a larger image that is scaled as a whole.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install pillow==13.0.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

print("pillow", PIL.__version__)
pixels = np.zeros((32, 32), np.uint8)
pixels[8:24, 8:24] = 255
image, box = Image.fromarray(pixels), (8, 8, 24, 24)
changed = False
for name in ("BILINEAR", "BICUBIC", "LANCZOS", "BOX"):
    resample = Image.Resampling[name]
    for side in (32, 4):
        boxed = np.asarray(image.resize((side, side), resample, box=box))
        cropped = np.asarray(image.crop(box).resize((side, side), resample))
        share = (boxed != cropped).mean()
        print(
            f"{name:8} to {side:2} x {side:2}: darkest pixel {boxed.min()} with box, "
            f"{cropped.min()} cropped first; {share:.0%} of the pixels differ"
        )
        changed |= cropped.min() != 255 or (share == 0) != (name == "BOX")
sys.exit(int(changed))
PYTHON
