"""Which family a checkpoint belongs to, by the names of its arrays."""

from collections.abc import Mapping, Sequence

from lska_jax.models.table import families, load
from lska_jax.weights.names.naming import Names
from lska_jax.weights.names.rows import Shape


def all_names() -> list[Names]:
    """Return the tables of all families that have PyTorch checkpoints."""
    return [load(family.names) for family in families().values() if family.names]


def is_known(name: str) -> bool:
    """Tell whether a name of a checkpoint stands for an array of any family."""
    return any(names.read(name) for names in all_names())


def full_names(names: Sequence[str]) -> list[str]:
    """Return the names of a file with the beginning that a part of a model leaves out.

    Several families leave out another beginning of the same names, as "layernorm.": the one counts
    that knows most of the file's names then.
    """
    best, most = list(names), 0
    for table in all_names():
        full = [table.full_name(name) for name in names]
        known = sum(bool(table.read(name)) for name in full)
        if known > most:
            best, most = full, known
    return best


def recognise(shapes: Mapping[str, Shape]) -> Names:
    """Return the table of the family that most names of a checkpoint speak for.

    Args:
      shapes: {name: shape in PyTorch layout}, wrappers removed.

    Raises:
      ValueError: no name is one of any family's.
    """
    tables = all_names()
    counts = [sum(bool(names.read(name)) for name in shapes) for names in tables]
    best = max(counts, default=0)
    if not best:
        shown = ", ".join(list(shapes)[:5]) or "none at all"
        examples = "; ".join(f"{names.family.name}: {names.example}" for names in tables)
        raise ValueError(
            f"no array has a name of a family that can be imported ({examples}, and the like); "
            f"names here: {shown}"
        )
    return tables[counts.index(best)]
