"""Names of splits, as people write them, and the folder that a name means.

``Train``, ``train_set`` and ``training`` are one split. ``val``, ``valid``, ``validation`` and
``dev`` are one, and so are ``test`` and ``testing``; of these two, one stands for the other where
that is missing.
"""

import re
from collections.abc import Sequence

from lska_jax.data.class_folders import readable

# Kind of split -> its names as ``_plain`` writes them, without "set" at the end.
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
# Which kinds may stand for a kind, the best first.
_STAND_INS = {
    "train": ("train",),
    "validation": ("validation", "test"),
    "test": ("test", "validation"),
}


def split_kind(name: str) -> str | None:
    """Return "train", "validation" or "test" for a name that usually means a split, else None."""
    plain = _plain(name)
    return next((kind for kind, names in _NAMES.items() if plain in names), None)


def may_be_split(name: str, split: str) -> bool:
    """Tell whether a folder may be a split at all, or the one that is asked for."""
    return _plain(name) == _plain(split) or split_kind(name) is not None


def choose_split(split: str, found: Sequence[str], *, where: str) -> str | None:
    """Return which of some folders a split is: that of its name, or of another name for it.

    Args:
      split: as it is asked for.
      found: names of folders.
      where: what holds them, for the message.

    Returns:
      One of ``found``, or None.

    Raises:
      ValueError: several of them have an equal claim.
    """
    if split in found:
        return split
    claims = [[name for name in found if _plain(name) == _plain(split)]]
    claims += [
        [name for name in found if split_kind(name) == kind]
        for kind in _STAND_INS.get(split_kind(split) or "", ())
    ]
    for names in claims:
        if len(names) > 1:
            shown = ", ".join(map(readable, sorted(names)))
            raise ValueError(
                f"{where} has several splits that {split!r} may mean: {shown}. Ask for one of them "
                "by its name."
            )
        if names:
            return names[0]
    return None


def _plain(name: str) -> str:
    plain = re.sub(r"[-_. ]", "", name.lower())
    return plain.removesuffix("set") if plain != "set" else plain
