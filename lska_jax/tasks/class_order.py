"""Labels are positions in a list of class names: two lists are compared before one is used.

The same names in another order are mapped, name by name. Other names are refused: nothing else
would notice that class 3 has become another one.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from lska_jax.data.sources import Record, Source
from lska_jax.weights.class_names import readable_names

_SHOWN_NAMES = 20
_ADVICE = "Give the folders the names of before, or start another run with these classes."


def same_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two lists name the same classes in the same order."""
    return _comparable(names) == _comparable(others)


def positions_in(names: Sequence[str], others: Sequence[str]) -> list[int] | None:
    """Return where each of ``names`` stands in ``others``; None where they are other classes."""
    mine, theirs = _comparable(names), _comparable(others)
    if sorted(mine) != sorted(theirs) or len(set(mine)) < len(mine):
        return None
    place = {name: position for position, name in enumerate(theirs)}
    return [place[name] for name in mine]


def describe_difference(
    names: Sequence[str], others: Sequence[str], *, what: str, other_what: str
) -> str:
    """Return both lists, and what stands in one of them alone.

    Args:
      names: class names in label order.
      others: the same of something else.
      what: has ``names``, as in "folder:photos".
      other_what: has ``others``.
    """
    mine, theirs = _comparable(names), _comparable(others)
    only = [name for name in mine if name not in set(theirs)]
    only_other = [name for name in theirs if name not in set(mine)]
    alone = [
        f"only in {where}: {_shown(found)}"
        for where, found in ((what, only), (other_what, only_other))
        if found
    ]
    lists = (
        f"{other_what} has {len(theirs)} classes ({_shown(theirs)}), "
        f"{what} has {len(mine)} ({_shown(mine)})"
    )
    return "; ".join([lists, *(alone or ["the same names in another order"])])


def in_order(source: Source, names: Sequence[str], *, whose: str, advice: str = _ADVICE) -> Source:
    """Return a source whose labels are positions in ``names``: itself, or a view of it.

    Args:
      source: its class names are those of ``names``, in any order.
      names: of the classes, in label order.
      whose: has ``names``, as in "the run".
      advice: what to do where the classes are others.

    Raises:
      ValueError: the source has other classes; both lists are in the message.
    """
    if same_order(source.class_names, names):
        return source
    positions = positions_in(source.class_names, names)
    if positions is None:
        difference = describe_difference(
            source.class_names, names, what=source.name, other_what=whose
        )
        raise ValueError(
            f"The classes differ: {difference}. Labels would stand for other classes. {advice}"
        )
    return RelabelledSource(source, positions, names)


class RelabelledSource:
    """A source whose labels are positions in another list of the same class names.

    Args:
      source: whose labels are replaced.
      positions: the new label of each of its classes.
      class_names: in the new order.
    """

    def __init__(self, source: Source, positions: Sequence[int], class_names: Sequence[str]):
        self._source = source
        self._positions = tuple(positions)
        self.name = source.name
        self.class_names = tuple(class_names)

    @property
    def labels(self) -> np.ndarray | None:
        """The new labels (N,) of all examples; None where the source does not know its own."""
        labels = getattr(self._source, "labels", None)
        return None if labels is None else self._relabel(labels)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """Return example ``index`` with its new label."""
        record = self._source[index]
        if isinstance(record.label, np.ndarray):
            return Record(record.image, self._relabel(record.label[None])[0])
        return Record(record.image, self._positions[record.label])

    def path(self, index: int) -> str:
        """Return what a person can look for."""
        return self._source.path(index)

    def _relabel(self, labels: np.ndarray) -> np.ndarray:
        """Map class indices (N,), or columns of (N, K)."""
        if labels.ndim == 1:
            return np.asarray(self._positions, np.int32)[labels]
        moved = np.empty_like(labels)
        moved[:, list(self._positions)] = labels
        return moved


def _comparable(names: Sequence[str]) -> tuple[str, ...]:
    """Return names in words, with each letter written one way: file systems know two."""
    return tuple(unicodedata.normalize("NFC", name) for name in readable_names(names))


def _shown(names: Sequence[str]) -> str:
    more = f", ... and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
