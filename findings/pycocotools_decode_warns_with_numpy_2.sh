#!/usr/bin/env bash
# pycocotools.mask.decode where warnings are errors.
#
# Versions: pycocotools 2.0.11, numpy 2.4.6, 2026-11.
# Expected by most: a release with wheels for NumPy 2 works with it without a word.
# Seen: every mask that is decoded gives NumPy's DeprecationWarning that __array__ has to take copy=,
#   so that a test suite with warnings as errors fails at the first mask. encode, area and iou are quiet.
# What helps: a filter for this warning, or faster-coco-eval (1.8.0), whose decode is quiet.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import sys
import warnings

import numpy as np

mask = np.zeros((6, 8), np.uint8)
mask[2:4, 3:7] = 1
seen = {}
for name in ("pycocotools.mask", "faster_coco_eval.core.mask"):
    library = importlib.import_module(name)
    encoded = library.encode(np.asfortranarray(mask))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded = library.decode(encoded)
    assert np.array_equal(decoded, mask)
    seen[name] = [one.category.__name__ for one in caught]
    print(name, "warns:", seen[name])
sys.exit(0 if list(seen.values()) == [["DeprecationWarning"], []] else 1)
PYTHON
