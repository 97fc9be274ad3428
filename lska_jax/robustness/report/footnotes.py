"""The footnotes of a table: where numbers come from, what is wrong with them, what words mean."""

from lska_jax.robustness.cells import StampedScore
from lska_jax.robustness.report.readings import (
    EXPLANATIONS,
    PROVENANCE_LETTERS,
    PROVENANCE_WORDS,
    Reading,
    State,
)


class Footnotes:
    """The footnotes of one table, numbered in the order in which they are needed."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}
        self._letters: dict[str, str] = {}
        self._has_official = False
        self._words: dict[State, str] = {}
        self._plain: dict[str, None] = {}

    def marks_of(self, reading: Reading) -> tuple[str, ...]:
        """Return the marks that a number or word needs, and keep what they stand for."""
        if reading.state in EXPLANATIONS:
            self._words[reading.state] = EXPLANATIONS[reading.state]
        if reading.stamped is None:
            return ()
        marks: tuple[str, ...] = ()
        self._has_official |= reading.stamped.provenance == "official"
        if reading.stamped.provenance != "official":
            letter = PROVENANCE_LETTERS[reading.stamped.provenance]
            self._letters[letter] = PROVENANCE_WORDS[reading.stamped.provenance]
            marks = (letter,)
        return (*marks, *self.note_marks(reading.stamped))

    def note_marks(self, stamped: StampedScore) -> tuple[str, ...]:
        """Return the mark of a score's note."""
        if not stamped.note:
            return ()
        return (self._notes.setdefault(stamped.note, str(len(self._notes) + 1)),)

    def add(self, text: str) -> None:
        """Add a footnote without a mark."""
        self._plain[text] = None

    def add_word(self, state: State) -> None:
        """Add what the word for a state means, if it needs words."""
        if state in EXPLANATIONS:
            self._words[state] = EXPLANATIONS[state]

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return (mark or "", text) of all footnotes."""
        letters = sorted(self._letters.items())
        unmarked = [("", "unmarked: official files")] if letters and self._has_official else []
        notes = [(mark, text) for text, mark in self._notes.items()]
        words = [("", self._words[state]) for state in EXPLANATIONS if state in self._words]
        return (*letters, *unmarked, *notes, *words, *(("", text) for text in self._plain))
