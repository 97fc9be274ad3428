"""A line that says what runs now and how long the rest will take."""

import time

from tqdm import tqdm

_REFRESH_SECONDS = 0.5


class Progress:
    """A bar over cases that names the contender which runs.

    Args:
      cases: how many there will be.
    """

    def __init__(self, cases: int):
        self._bar = tqdm(total=cases, unit="case", dynamic_ncols=True)
        self._case = ""
        self._shown_at = 0.0

    def begin(self, case: str) -> None:
        """Say which case runs now."""
        self._case = case
        self.show("")

    def show(self, contender: str) -> None:
        """Say which contender runs now; too frequent calls are not drawn."""
        shown = f"{self._case}: {contender}" if contender else self._case
        self._bar.set_description_str(shown, refresh=False)
        if time.monotonic() - self._shown_at > _REFRESH_SECONDS:
            self._bar.refresh()
            self._shown_at = time.monotonic()

    def end(self) -> None:
        """Count the case as done."""
        self._bar.update()

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
