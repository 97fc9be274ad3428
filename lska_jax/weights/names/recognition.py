"""Which family a checkpoint belongs to, by the names of its arrays."""

from collections.abc import Iterable, Mapping, Sequence

from lska_jax.models.heads import family_with_head
from lska_jax.models.table import families, load
from lska_jax.weights.names.dense import dense_names, has_backbone, recognise_head, split_names
from lska_jax.weights.names.naming import Names
from lska_jax.weights.names.rows import Shape


def all_names() -> list[Names]:
    """Return the tables of all families that have PyTorch checkpoints."""
    return [load(family.names) for family in families().values() if family.names]


def is_known(name: str) -> bool:
    """Tell whether a name of a checkpoint, or of a part of a model, stands for a family's array."""
    return any(names.read(names.full_name(name)) for names in all_names())


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


def best_table(names: Iterable[str]) -> Names:
    """Return the table of the family that most names of a checkpoint speak for."""
    tables = all_names()
    counts = _counts(tables, list(names))
    return tables[counts.index(max(counts))]


def recognise(shapes: Mapping[str, Shape]) -> Names:
    """Return the table of the family that most names of a checkpoint speak for.

    Args:
      shapes: {name: shape in PyTorch layout}, wrappers removed; of a network with a head the
        prefix of its backbone stays.

    Raises:
      ValueError: fewer than half of the names are one family's.
    """
    if has_backbone(shapes):
        backbone, beside = split_names(shapes)
        if head := recognise_head(beside):
            return dense_names(family_with_head(recognise(backbone).family, head.name))
    tables = all_names()
    counts = _counts(tables, list(shapes))
    best = max(counts)
    table = tables[counts.index(best)]
    ignored = sum(table.is_ignored(name) for name in shapes)
    if not best or 2 * best < len(shapes) - ignored:
        shown = ", ".join(list(shapes)[:5]) or "none at all"
        examples = "; ".join(f"{names.family.name}: {names.example}" for names in tables)
        found = (
            f"at most {best} of {len(shapes)} arrays have names" if best else "no array has a name"
        )
        raise ValueError(
            f"{found} of a family that can be imported ({examples}, and the like); names here: "
            f"{shown}"
        )
    return table


def _counts(tables: Sequence[Names], names: Sequence[str]) -> list[int]:
    return [sum(bool(table.read(name)) for name in names) for table in tables]
