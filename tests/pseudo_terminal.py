"""A terminal for tests: what was written to it, as a person would see it."""

import contextlib
import os
import pty
import re


class Terminal:
    """A real pseudo-terminal, and what a person would see on it."""

    def __init__(self):
        self._master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.written = ""

    def close(self):
        """Let go of both ends, keeping what was written."""
        if self.stream.closed:
            return
        self.stream.close()
        content = b""
        # Linux ends a closed pseudo-terminal with an error instead of an empty read.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._master, 65536):
                content += chunk
        os.close(self._master)
        self.written = content.decode()

    def rows(self):
        """Return the non-empty rows: rewrites in place applied, as a terminal does."""
        self.close()
        rows, column = [""], 0
        for token in re.findall(r"\x1b\[K|.|\n|\r", self.written, re.DOTALL):
            if token == "\r":
                column = 0
            elif token == "\n":
                rows.append("")
                column = 0
            elif token == "\x1b[K":
                rows[-1] = rows[-1][:column]
            else:
                rows[-1] = rows[-1][:column] + token + rows[-1][column + 1 :]
                column += 1
        return [row.rstrip() for row in rows if row.strip()]
