"""Names and layouts of PyTorch checkpoints against our paths: what a family's table is made of.

A table has a row for each module of ours, see ``rows``. Families with several forms, as VAN has
several attentions, have rows for each *variant*.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lska_jax.models.table import Family, ModelEntry, Preprocessing
from lska_jax.weights.names.rows import COUNTER, Layout, Row, Shape, as_parts


class Meaning(NamedTuple):
    """What a name of a checkpoint can stand for.

    Attributes:
      naming: the naming that has it.
      variants: the variants that have it.
      path: of the array here.
      parts: in how many arrays it is stored, joined along PyTorch's axis 0.
    """

    naming: str
    variants: frozenset[str]
    path: str
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class Inferred:
    """What names and shapes say about a network; None where they say nothing.

    Attributes:
      fields: fields of the family's config.
      naming: the naming that most names have.
    """

    fields: dict[str, Any]
    naming: str


class Names:
    """The checkpoints of one family: names, layouts, and what they say about the network.

    A family whose arrays show more than classes and channels, or whose checkpoints want other
    preprocessing than its models, overrides the methods for it.

    Attributes:
      family: name of the family.
      namings: the first is that of the reference code.
      rows: {variant: rows in the order of the reference's state_dict}.
      ignored: ends of names that nothing computes with.
      aliases: {beginning of a name: beginning that it stands for}.
      preprocessings: what ``--preprocessing`` may be.
    """

    def __init__(
        self,
        family: Family,
        *,
        namings: tuple[str, ...],
        rows: Mapping[str, Sequence[Row]],
        ignored: tuple[str, ...] = (COUNTER,),
        aliases: Mapping[str, str] | None = None,
        preprocessings: Mapping[str, Preprocessing] | None = None,
    ):
        self.family = family
        self.namings = namings
        self.rows = {variant: tuple(of_variant) for variant, of_variant in rows.items()}
        self.ignored = ignored
        self.aliases = dict(aliases or {})
        self.preprocessings = dict(preprocessings or {"reference": family.preprocessing})

    @property
    def example(self) -> str:
        """A name that shows what the reference's look like."""
        row = next(iter(self.rows.values()))[0]
        leaf, _ = next(iter(row.leaves.values()))
        return _with_leaf(_filled(as_parts(row.names[0])[0], {}), leaf)

    def variant_of(self, config: Any) -> str:
        """Return which rows a config's network has."""
        del config
        (variant,) = self.rows
        return variant

    def names_of(self, path: str, *, variant: str) -> tuple[dict[str, tuple[str, ...]], Layout]:
        """Return {naming: names} of one of our arrays, and its layout in PyTorch.

        Several names are parts, joined along PyTorch's axis 0.

        Raises:
          ValueError: the path belongs to no network of the family.
        """
        found = self._find(path, variant)
        if found is None:
            raise ValueError(f"{path!r} is not a path of a {self.family.name} model.")
        row, places, leaf = found
        torch_leaf, layout = row.leaves[leaf]
        names = {
            naming: tuple(_with_leaf(_filled(t, places), torch_leaf) for t in as_parts(templates))
            for naming, templates in zip(self.namings, row.names, strict=True)
            if templates is not None
        }
        return names, layout

    def parts_of(
        self, path: str, *, variant: str, naming: str = ""
    ) -> tuple[tuple[str, ...], Layout]:
        """Return the names of one of our arrays in one naming, and its layout there.

        Args:
          path: path of a parameter or statistic, as in ``lska_jax.nn.functional``.
          variant: of the network.
          naming: one of ``namings``; "" is the first.

        Raises:
          ValueError: the path belongs to no network of the family, or the naming does not know it.
        """
        names, layout = self.names_of(path, variant=variant)
        naming = naming or self.namings[0]
        if naming not in self.namings:
            raise ValueError(f"naming={naming!r} is unknown; allowed: {', '.join(self.namings)}.")
        if naming not in names:
            column = self.namings.index(naming)
            whole = [v for v, rows in self.rows.items() if all(row.names[column] for row in rows)]
            raise ValueError(
                f"The naming {naming!r} has no name for {path} of {variant}; it has "
                f"{', '.join(whole)} only. Use naming={self.namings[0]!r}."
            )
        return names[naming], layout

    def name_of(self, path: str, *, variant: str, naming: str = "") -> tuple[str, Layout]:
        """Return the one name of an array of ours in a naming that stores it whole; see parts_of.

        Raises:
          ValueError: as ``parts_of``, or the array is stored in parts.
        """
        parts, layout = self.parts_of(path, variant=variant, naming=naming)
        if len(parts) > 1:
            raise ValueError(f"{path} is stored in parts there: {', '.join(parts)}.")
        return parts[0], layout

    def read(self, name: str) -> list[Meaning]:
        """Return everything that a name of a checkpoint can stand for; [] for nothing."""
        found = []
        dots = [0, *(i for i, letter in enumerate(name) if letter == ".")]
        for entry in (entry for dot in dots for entry in self._by_ending.get(name[dot:], ())):
            match = _pattern(entry.template).fullmatch(name)
            if match:
                places = {key: int(number) for key, number in match.groupdict().items()}
                for letter, shift in _SHIFTED.items():
                    if letter in places:
                        places["s"] = places[letter] - shift
                path = _filled(entry.path, places)
                found.append(Meaning(entry.naming, entry.variants, path, entry.parts))
        return found

    def is_ignored(self, name: str) -> bool:
        """Tell whether a name belongs to nothing that a model computes with."""
        return name.endswith(self.ignored)

    def full_name(self, name: str) -> str:
        """Return a name with the beginning that a part of a model leaves out, if it does."""
        for beginning, whole in self.aliases.items():
            full = whole + name.removeprefix(beginning)
            if name.startswith(beginning) and (self.is_ignored(full) or self.read(full)):
                return full
        return name

    def in_order(self, paths: Sequence[str], *, variant: str) -> list[str]:
        """Return paths in the order of the reference's state_dict: stages, their parts, blocks."""
        return sorted(paths, key=lambda path: self._rank(path, variant))

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read the network off the names and shapes of a checkpoint.

        Args:
          shapes: {name: shape in PyTorch layout}, wrappers removed.
        """
        by_path, naming = self.by_path(shapes)
        stem, head = by_path.get(self.family.stem), by_path.get(self.family.head[0])
        fields = {"in_channels": stem and stem[1], "num_classes": head[0] if head else 0}
        return Inferred(fields, naming)

    def by_path(self, shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], str]:
        """Return shapes, in PyTorch layout, by our paths, and the naming of most of them."""
        by_path: dict[str, Shape] = {}
        namings: Counter[str] = Counter({self.namings[0]: 0})
        for name, shape in shapes.items():
            for meaning in () if self.is_ignored(name) else self.read(name):
                whole = shape if meaning.parts == 1 else (meaning.parts * shape[0], *shape[1:])
                by_path.setdefault(meaning.path, whole)
                namings[meaning.naming] += 1
        return by_path, namings.most_common(1)[0][0]

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> Any:
        """Return the config that a file has to fit: what was asked for, completed by its shapes.

        Args:
          inferred: from ``infer``.
          entry: the named model that was asked for, if any.
          given: fields that were asked for.

        Raises:
          ValueError: shapes and wishes do not say which network it is.
        """
        if entry is None and set(inferred.fields) <= {"num_classes", "in_channels"}:
            raise ValueError(
                f"The arrays do not show which {self.family.name} it is; pass --model with one of "
                f"{', '.join(self.family.models)}."
            )
        return self.family.config(**self.complete(inferred.fields, entry=entry, given=given))

    def complete(
        self, shown: Mapping[str, Any], *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return a config's fields: what was given, what a name stands for, what shapes show.

        Raises:
          ValueError: there is no name, and the shapes leave fields open.
        """
        clear = {name: value for name, value in shown.items() if not is_unclear(value)}
        stands_for = entry.fields if entry else {}
        unclear = [name for name in shown if name not in {**clear, **given}]
        if len({len(value) for value in clear.values() if isinstance(value, tuple)}) > 1:
            unclear.append("stages")
        if unclear and entry is None:
            raise ValueError(
                f"The file does not show the network's {', '.join(unclear)}: arrays are missing or "
                "have impossible shapes. Pass --model to see every one listed."
            )
        return {**clear, **stands_for, **given}

    def usual_preprocessing(self, naming: str, config: Any) -> tuple[str, str]:
        """Return which of ``preprocessings`` such weights want, and the sentence that says so."""
        del naming, config
        choice = next(iter(self.preprocessings))
        prepared = self.preprocessings[choice]
        return choice, f"Preprocessing: mean {prepared.mean}, std {prepared.std}."

    def import_notes(self, naming: str, config: Any) -> list[str]:
        """Return what a user has to know about the network that was recognised."""
        del naming, config
        return []

    def export_notes(self, naming: str, config: Any) -> list[str]:
        """Return what a user of an exported file has to set in the code that reads it."""
        del naming, config
        return []

    def unused_arrays(self, naming: str, config: Any) -> dict[str, np.ndarray]:
        """Return arrays that a naming's code wants in its files and never computes with."""
        del naming, config
        return {}

    def _find(self, path: str, variant: str) -> tuple[Row, dict[str, int], str] | None:
        module, _, leaf = path.rpartition("/")
        for row in self.rows[variant]:
            match = _pattern(row.path).fullmatch(module)
            if match and leaf in row.leaves:
                return row, {name: int(n) for name, n in match.groupdict().items()}, leaf
        return None

    def _rank(self, path: str, variant: str) -> tuple[Any, ...]:
        found = self._find(path, variant)
        if found is None:
            return (math.inf,)
        row, places, leaf = found
        rows = self.rows[variant]
        index = rows.index(row)
        # Rows with blocks alternate with rows without: each run of them is a part of the stage.
        is_in_block = ["{b}" in before.path for before in rows[: index + 1]]
        part = sum(one != next_one for one, next_one in itertools.pairwise(is_in_block))
        is_behind = any("{s}" in before.path for before in rows[:index])
        stage = places.get("s", math.inf if is_behind else -1)
        return (stage, part, places.get("b", 0), index, list(row.leaves).index(leaf))

    @functools.cached_property
    def _by_ending(self) -> dict[str, list["_Entry"]]:
        """Return the whole table by what stands behind the last number of each template."""
        having: dict[tuple[Any, ...], list[str]] = {}
        for variant, rows in self.rows.items():
            for row in rows:
                for leaf, (torch_leaf, _) in row.leaves.items():
                    path = f"{row.path}/{leaf}".removeprefix("/")
                    for naming, templates in zip(self.namings, row.names, strict=True):
                        parts = as_parts(templates)
                        for template in parts:
                            key = (naming, _with_leaf(template, torch_leaf), path, len(parts))
                            having.setdefault(key, []).append(variant)
        entries: dict[str, list[_Entry]] = {}
        for (naming, whole, path, count), variants in having.items():
            entry = _Entry(naming, frozenset(variants), whole, path, count)
            entries.setdefault(whole.rpartition("}")[2], []).append(entry)
        return entries


def is_unclear(value: object) -> bool:
    """Tell whether a field, or a stage's entry in it, could not be read off the shapes."""
    if isinstance(value, tuple):
        return not value or not all(value)
    return value is None


class _Entry(NamedTuple):
    """One leaf of a module in one naming."""

    naming: str
    variants: frozenset[str]
    template: str
    path: str
    parts: int


# Stages are counted from 0, from 1, or by the stage ahead of them.
_SHIFTED = {"S": 1, "P": -1}


def _filled(template: str, places: Mapping[str, int]) -> str:
    stage = places.get("s", 0)
    shifted = {letter: stage + shift for letter, shift in _SHIFTED.items()}
    return template.format(s=stage, **shifted, b=places.get("b", 0))


def _with_leaf(name: str, leaf: str) -> str:
    return f"{name}.{leaf}" if name and leaf else name or leaf


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Return the regular expression of a template; every number has one spelling."""
    pattern = re.escape(template)
    from_0, from_1, block = "0|[1-9][0-9]?", "[1-9][0-9]?", "0|[1-9][0-9]{0,2}"
    for place, number in {"s": from_0, "S": from_1, "P": from_0, "b": block}.items():
        pattern = pattern.replace(re.escape(f"{{{place}}}"), f"(?P<{place}>{number})")
    return re.compile(pattern)
