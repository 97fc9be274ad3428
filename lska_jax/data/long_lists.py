"""Lists in messages: the first lines are shown, and a long list lies whole in a file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lska_jax.data.class_folders import readable

_SHOWN = 20


def list_lines(lines: Sequence[str]) -> str:
    """Return lines as they follow a sentence, each on a line of its own.

    Of more than 20 the first 20 are returned, with the name of a new file in a folder of its own
    that holds all of them. A list must not hide what it is for: where there is no place for the
    file, that is said instead.
    """
    shown = [readable(line) for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"... and {len(lines) - _SHOWN} more; {_write(lines)}")
    return "".join(f"\n  {line}" for line in shown)


def _write(lines: Sequence[str]) -> str:
    try:
        file = Path(tempfile.mkdtemp(prefix="lska_jax_"), "list.txt")
        file.write_text("".join(f"{readable(line)}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        return f"a file with all {len(lines)} could not be written: {error}"
    return f"all {len(lines)} are in {file}"
