#!/usr/bin/env bash
# JAX_PLATFORMS names a platform whose plugin is not installed.
#
# Versions: jax 0.10.2, 2026-11.
# Expected by most: jax.devices() raises RuntimeError, "Unable to initialize backend ...", for every platform that
#   is not there, so that a program can catch it and say what to install.
# Seen: so it is for rocm and for tpu. For cuda it is an AssertionError without any text: code that catches
#   RuntimeError lets it through, and what people see is an empty line behind a traceback.
# What helps: catch AssertionError as well, around the first call that asks for devices.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2
seen=""
for platform in rocm tpu cuda; do
  one=$(JAX_PLATFORMS=$platform "$folder/venv/bin/python" - <<'PYTHON'
import jax

try:
    jax.devices()
except Exception as error:
    print(type(error).__name__, "with words" if str(error) else "without a word")
else:
    print("devices")
PYTHON
)
  echo "$platform: $one"
  seen="$seen$platform $one;"
done
[ "$seen" = "rocm RuntimeError with words;tpu RuntimeError with words;cuda AssertionError without a word;" ]
