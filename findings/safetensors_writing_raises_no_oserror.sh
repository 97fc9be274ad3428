#!/usr/bin/env bash
# safetensors.numpy.save_file into a folder that is not there, and onto a full disk.
#
# Versions: safetensors 0.8.0, numpy 2.4.6, 2026-11.
# Expected by most: OSError, as of open() and numpy.save, with errno and filename, so that a program that handles
#   "No such file or directory" and "No space left on device" handles them here as well.
# Seen: safetensors.SafetensorError, which is a plain Exception: neither OSError nor ValueError. The system's error
#   number stands in its text alone.
# What helps: catch SafetensorError where files are written, and raise OSError from it.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install safetensors==0.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import resource

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

arrays = {"a": np.zeros(100_000, np.float32)}
# Files of this process may have 4 kB at most: what a full disk looks like to a program.
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
is_as_described = True
for place in ("nowhere/a.safetensors", "a.safetensors"):
    try:
        np.save(open(place + ".npy", "wb"), arrays["a"])
    except OSError as error:
        print(f"numpy       {place}: {type(error).__name__}, errno {error.errno}")
    try:
        save_file(arrays, place)
    except Exception as error:
        print(f"safetensors {place}: {type(error).__name__}: {error}")
        is_as_described &= isinstance(error, SafetensorError) and not isinstance(error, OSError)
    else:
        is_as_described = False
raise SystemExit(0 if is_as_described else 1)
PYTHON
