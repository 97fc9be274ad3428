"""Compiled programs kept on disk, so that a second start does not compile again.

JAX writes the entries (``jax_compilation_cache_dir``) and checks little: a flipped bit may be
loaded as machine code, a truncated entry stays and warns at every start. So each entry gets its
SHA-256 beside it as soon as it is written, and what does not match goes before anything is read.

An entry is code that will run: whoever can write to the folder can run programs as you.
"""

import functools
import hashlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax

from lska_jax.running.whole_file import write_whole

_WRITABLE_BY_OTHERS = 0o022
ENTRY, _SEAL = "-cache", "-cache.sha256"
_LARGEST_FOLDER = 4 * 2**30
# An entry without a seal is being written, or was when its process was killed.
_SECONDS_TO_SEAL = 3600.0
# JAX's default of 1 s leaves out programs that make up a second of every start.
_MIN_COMPILE_SECONDS = 0.1
_COMPILED = "/jax/core/compile/backend_compile_duration"
_used_folder: Path | None = None


def use_compilation_cache(choice: str | None = None) -> Path | None:
    """Keep compiled programs, from here on.

    Call it after ``parallel.start_processes`` and before anything is compiled. Of several
    processes JAX lets the first one write; on several hosts a shared folder serves all.

    Args:
      choice: a folder, "off", or None: where JAX was told to
        (``JAX_COMPILATION_CACHE_DIR``), which is then left as it is, or else ``default_folder()``.

    Returns:
      The folder, or None where there is none or JAX was told its own.
    """
    global _used_folder
    _used_folder = None
    if choice == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    settings: Any = jax.config
    if choice is None and settings.jax_compilation_cache_dir:
        return None
    try:
        folder = Path(choice).expanduser().absolute() if choice else default_folder()
    except RuntimeError:
        print(
            "Compiled programs are not kept: HOME is not set, and the user has no home folder. "
            "XDG_CACHE_HOME or --compilation_cache names a folder for them.",
            file=sys.stderr,
        )
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
        if mode & _WRITABLE_BY_OTHERS:
            print(
                f"Compiled programs are not kept: others can write to {folder} (mode "
                f"{mode & 0o777:o}), and could run programs as you. To use it: chmod go-w {folder}",
                file=sys.stderr,
            )
            return None
        _remove_damaged(folder)
        _remove_oldest(folder, _LARGEST_FOLDER)
    except OSError as error:
        print(f"Compiled programs are not kept: {error}", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if settings.jax_persistent_cache_min_compile_time_secs == 1.0:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)

    _seal_what_is_compiled()
    _used_folder = folder
    return folder


@functools.cache
def _seal_what_is_compiled() -> None:
    """Seal every entry that JAX writes from now on to the folder in use; once in a process."""

    def seal_compiled(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and duration_secs >= _MIN_COMPILE_SECONDS and _used_folder:
            seal_new(_used_folder)

    jax.monitoring.register_event_duration_secs_listener(seal_compiled)


def keep_in_running_process(choice: str | None) -> None:
    """Keep compiled programs in a process that may have compiled some already, a notebook's say.

    Args:
      choice: as ``use_compilation_cache`` takes it, but "off" leaves the settings as they are, and
        so does None where they keep nothing.
    """
    settings: Any = jax.config
    if choice == "off":
        return
    if choice is None and (kept_in() is not None or not settings.jax_enable_compilation_cache):
        return
    from jax.experimental.compilation_cache import compilation_cache

    if use_compilation_cache(choice) is not None:
        # Whatever was compiled here before has settled for JAX that there is no cache.
        compilation_cache.reset_cache()


def kept_in() -> Path | None:
    """Return the folder that ``use_compilation_cache`` chose, while JAX uses it; else None."""
    settings: Any = jax.config
    is_used = settings.jax_compilation_cache_dir == str(_used_folder)
    return _used_folder if is_used and settings.jax_enable_compilation_cache else None


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/lska_jax/xla/MACHINE``, with ``~/.cache`` where that is not set.

    RuntimeError where nobody knows of a home folder.

    A home folder may be shared by machines that do not run each other's programs, and JAX's key
    does not always tell them apart; so MACHINE has a hash of what the processor can do.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lska_jax" / "xla" / _machine()


def _machine() -> str:
    described = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kept = ("flags", "Features", "model name")
        described = "\n".join(sorted({line for line in lines if line.startswith(kept)}))
    except OSError:
        pass
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"


def seal_new(folder: Path) -> None:
    """Write the SHA-256 of every entry that has none yet."""
    # A cache that cannot be written costs time, not the run.
    try:
        for entry in folder.glob(f"*{ENTRY}"):
            seal = _seal_of(entry)
            if not seal.exists():
                write_whole(seal, _digest(entry))
    except OSError:
        pass


def remove(entry: Path) -> None:
    """Remove an entry of the folder and its seal."""
    entry.unlink(missing_ok=True)
    _seal_of(entry).unlink(missing_ok=True)


def _remove_damaged(folder: Path) -> None:
    for entry in folder.glob(f"*{ENTRY}"):
        seal = _seal_of(entry)
        try:
            if seal.exists():
                is_good = seal.read_text() == _digest(entry)
            else:
                is_good = time.time() - entry.stat().st_mtime < _SECONDS_TO_SEAL
        except FileNotFoundError:
            # Another process was faster.
            continue
        if not is_good:
            print(f"Removed a damaged compiled program: {entry}", file=sys.stderr)
            remove(entry)


def _remove_oldest(folder: Path, largest: int) -> None:
    found = []
    for entry in folder.glob(f"*{ENTRY}"):
        try:
            found.append((entry.stat().st_mtime, entry.stat().st_size, entry))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in found)
    for _, size, entry in sorted(found):
        if total <= largest:
            return
        remove(entry)
        total -= size


def _seal_of(entry: Path) -> Path:
    return entry.with_name(entry.name.removesuffix(ENTRY) + _SEAL)


def _digest(entry: Path) -> str:
    return hashlib.sha256(entry.read_bytes()).hexdigest()
