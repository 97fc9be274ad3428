#!/usr/bin/env bash
# timm's usual RandAugment, rand-m9-mstd0.5-inc1, with Pillow 13.
#
# Versions: timm 1.0.31 (its auto_augment.py alone, which needs no PyTorch), pillow 12.0.0 and 13.0.0, numpy 2.3.5,
#   2026-11.
# Expected by most: that a recipe that trained for years trains on. A newer Pillow may change pixels, not stop a run
#   after some thousand images.
# Seen: magnitudes are drawn around 9 and cut off at 10, where posterizing keeps 0 bits. Pillow 12.0.0 returns a
#   black image; 13.0.0 raises a ValueError that asks for 1 to 8 bits. Of 20,000 images under the recipe none fails
#   in 12.0.0 and 31 in 13.0.0 (seed 0), seldom enough to pass a first look.
# What helps: pillow below 13 for such recipes, or one bit at least; a loader should say which image and operation
#   it was, since the next start draws others.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/augment.py" <<'PYTHON'
import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

(path,) = Path(sys.prefix).glob("lib/python*/site-packages/timm/data/auto_augment.py")
spec = importlib.util.spec_from_file_location("auto_augment", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
strongest = module.AugmentOp("PosterizeIncreasing", prob=1.0, magnitude=10, hparams={})
try:
    print(f"pillow {PIL.__version__}: magnitude 10 gives extremes {strongest(image).getextrema()}")
    is_black = True
except ValueError as error:
    print(f"pillow {PIL.__version__}: magnitude 10 raises {error}")
    is_black = False

random.seed(0)
np.random.seed(0)
augment = module.rand_augment_transform("rand-m9-mstd0.5-inc1", {})
failed = 0
for _ in range(20_000):
    try:
        augment(image)
    except ValueError:
        failed += 1
print(f"pillow {PIL.__version__}: {failed} of 20,000 images failed under rand-m9-mstd0.5-inc1")
is_old = int(PIL.__version__.split(".")[0]) < 13
sys.exit(0 if is_black == is_old and (failed == 0) == is_old else 1)
PYTHON
for version in 12.0.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" --quiet install "pillow==$version" numpy==2.3.5
    "$folder/$version/bin/pip" --quiet install --no-deps timm==1.0.31
    "$folder/$version/bin/python" "$folder/augment.py"
done
