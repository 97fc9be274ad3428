#!/usr/bin/env bash
# A compiled program that JAX read from its compilation cache, written anew with serialize_executable, on CPU.
#
# Versions: jax 0.10.2, 2026-11.
# Expected by most: that a compiled program is a compiled program: whether XLA has just made it or JAX's cache had it,
#   jax.experimental.serialize_executable writes the same, and what deserialize_and_load returns can be called.
# Seen: the one that XLA has just made is written whole. The one from the cache is written too, and loaded without a
#   word; its first call raises JaxRuntimeError, NOT_FOUND: a function of the program is not found. So a program that
#   keeps its executables works in every test with an empty cache, and keeps useless files on machines with a warm one.
# What helps: compile with the cache off (jax_enable_compilation_cache, then compilation_cache.reset_cache()), or call
#   what was loaded once before it is kept.
# Ends 0 while the behaviour is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2
cat > "$folder/write_and_call.py" <<'PYTHON'
import jax
import jax.numpy as jnp
from jax.experimental.serialize_executable import deserialize_and_load, serialize

hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)


def double(factor, images):
    return factor * images


arguments = jnp.float32(2), jnp.arange(6, dtype=jnp.float32)
hits.clear()
compiled = jax.jit(double).lower(*arguments).compile()
source = "from the cache" if hits else "just compiled"
assert compiled(*arguments)[1] == 2
loaded = deserialize_and_load(*serialize(compiled), execution_devices=jax.devices()[:1])
try:
    print(f"{source}, written, loaded, called: {loaded(*arguments)[1]}")
except jax.errors.JaxRuntimeError as error:
    print(f"{source}, written, loaded, called: {str(error).split(':')[0]}")
PYTHON
export JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$folder/cache" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
seen=""
for start in first second; do
  one=$("$folder/venv/bin/python" "$folder/write_and_call.py")
  echo "$start start: $one"
  seen="$seen$one;"
done
[ "$seen" = "just compiled, written, loaded, called: 2.0;from the cache, written, loaded, called: NOT_FOUND;" ]
