"""Keep Orbax's routine log lines off a run's terminal.

Orbax logs dozens of lines a save through absl's logger. Its failures are raised again by
`checkpointer` with the step and the folder, so nothing of theirs is lost.
"""

from __future__ import annotations

import logging


class _DropOrbax(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


_FILTER = _DropOrbax()


def quiet_orbax() -> None:
    """Drop what Orbax's own files log; other users of absl's logger keep their lines."""
    # absl has to make its logger itself: one made here would report absl's own file as the
    # source of every line. A filter that is already there is not added twice.
    import absl.logging  # noqa: F401

    logging.getLogger("absl").addFilter(_FILTER)
