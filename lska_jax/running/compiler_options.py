"""XLA's options for the processor at hand, in a process that is ours.

``benchmarks/compiler_options.py`` measures each that was tried. They stand in ``XLA_FLAGS``, which
XLA reads when its first program is compiled. An option that it does not know ends the process, so
one is set only where every XLA that is installed has it. The libraries are asked without loading
them, in milliseconds: a flag's name stands in them as a string, and as a field of the message that
flags are read into. (Either alone does not tell: there are options of other kinds, and fields that
are kept for their numbers.)

Programs compiled with other options round differently. A run therefore records what it had
(``running.environment``), and a start with other options says so.
"""

import importlib.util
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from lska_jax.ops.processor import has_wide_vectors
from lska_jax.running.own_process import is_own_process

VARIABLE = "XLA_FLAGS"
# Twice as many numbers an instruction as XLA's default of 256 bits, where the processor has them.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"


def use_compiler_options() -> None:
    """Put our options behind the user's, whose own value of an option stays.

    For the main module of a program only, before XLA is used. Nothing happens in a process that is
    not ours, see ``own_process``, nor where XLA_FLAGS names a file.
    """
    given = os.environ.get(VARIABLE, "")
    if not is_own_process() or (given and not given.lstrip().startswith("-")):
        return
    missing = [option for option in _options() if _name(option) not in _names(given)]
    kept = [option for option in missing if is_known(option)]
    if kept:
        os.environ[VARIABLE] = " ".join([given, *kept] if given else kept)


def is_known(option: str) -> bool:
    """Tell whether every XLA that is installed knows an option, without loading any of them.

    Args:
      option: as it stands in XLA_FLAGS, "--NAME=VALUE".
    """
    name = _name(option).encode()
    # Strings lie one behind the other, each with a zero at its end. A field in use starts, in the
    # description of its message, with its name (tag 1) and its number (tag 3).
    words = (b"\0" + name + b"\0", b"\n" + bytes([len(name)]) + name + b"\x18")
    libraries = list(_libraries())
    return bool(libraries) and all(_has_all(library, words) for library in libraries)


def _options() -> tuple[str, ...]:
    """Return the options for this machine's processor."""
    return (WIDE_VECTORS,) if has_wide_vectors() else ()


def _libraries() -> Iterator[Path]:
    """Yield the libraries that read XLA_FLAGS: jaxlib's, and those of GPUs and TPUs beside it."""
    found = importlib.util.find_spec("jaxlib")
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        yield folder / "libjax_common.so"
        for pattern in ("jax_plugins/*/xla_*_plugin.so", "libtpu/libtpu.so"):
            yield from folder.parent.glob(pattern)


def _has_all(library: Path, words: tuple[bytes, ...]) -> bool:
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
        ):
            return all(content.find(word) >= 0 for word in words)
    except (OSError, ValueError):
        return False


def _names(options: str) -> set[str]:
    return {_name(option) for option in options.split()}


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
