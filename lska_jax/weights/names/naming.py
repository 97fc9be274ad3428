"""Names and layouts of PyTorch checkpoints against our paths: what a family's table is made of.

A table has a row for each module of ours: its path, its name in each naming that checkpoints out
there have, and how its arrays are laid out in them. Families with several forms, as VAN has several
attentions, have rows for each *variant*.
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

Shape = tuple[int, ...]

# Counters of PyTorch's BatchNorm, which nothing here reads.
COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Layout:
    """An array's axes in PyTorch against ours.

    Attributes:
      axes: the PyTorch axis of each of our axes.
      is_1x1: PyTorch's first two of ``axes`` have length 1 and are dropped here.
    """

    axes: tuple[int, ...]
    is_1x1: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes in PyTorch."""
        return len(self.axes)

    def array(self, torch_array: np.ndarray) -> np.ndarray:
        """Turn a PyTorch array into ours, a view of it."""
        turned = np.transpose(torch_array, self.axes)
        return turned[0, 0] if self.is_1x1 else turned

    def torch_array(self, array: np.ndarray) -> np.ndarray:
        """Turn an array of ours into PyTorch's, contiguous."""
        whole = array[None, None] if self.is_1x1 else array
        # Not np.ascontiguousarray, which makes vectors of scalars.
        return np.array(np.transpose(whole, np.argsort(self.axes)), order="C")

    def torch_shape(self, shape: Sequence[int]) -> Shape:
        """Turn a shape of ours into PyTorch's."""
        whole = (1, 1, *shape) if self.is_1x1 else tuple(shape)
        return tuple(whole[axis] for axis in np.argsort(self.axes))


class Row(NamedTuple):
    """One module: {s} and {b} are stage and block from 0, {S} is the stage from 1.

    Attributes:
      path: of the module here, a template.
      leaves: {leaf here: (leaf in PyTorch, layout)}.
      names: of the module in each naming, templates; None where a naming does not have it.
    """

    path: str
    leaves: Mapping[str, tuple[str, Layout]]
    names: tuple[str | None, ...]


VECTOR = Layout((0,))
BIAS = {"bias": ("bias", VECTOR)}
NORM = {"scale": ("weight", VECTOR), **BIAS}
BATCH_NORM = {**NORM, "mean": ("running_mean", VECTOR), "var": ("running_var", VECTOR)}
# (out, in / groups, kh, kw) -> (kh, kw, in / groups, out)
CONV = {"kernel": ("weight", Layout((2, 3, 1, 0))), **BIAS}
# A 1x1 convolution is a matrix product over channels here.
CONV_1X1 = {"kernel": ("weight", Layout((2, 3, 1, 0), is_1x1=True)), **BIAS}
MATRIX = {"kernel": ("weight", Layout((1, 0))), **BIAS}


class Meaning(NamedTuple):
    """What a name of a checkpoint can stand for.

    Attributes:
      naming: the naming that has it.
      variants: the variants that have it.
      path: of the array here.
    """

    naming: str
    variants: frozenset[str]
    path: str


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
        return _with_leaf(_filled(row.names[0] or "", {}), leaf)

    def variant_of(self, config: Any) -> str:
        """Return which rows a config's network has."""
        del config
        (variant,) = self.rows
        return variant

    def names_of(self, path: str, *, variant: str) -> tuple[dict[str, str], Layout]:
        """Return {naming: name} of one of our arrays, and its layout in PyTorch.

        Raises:
          ValueError: the path belongs to no network of the family.
        """
        found = self._find(path, variant)
        if found is None:
            raise ValueError(f"{path!r} is not a path of a {self.family.name} model.")
        row, places, leaf = found
        torch_leaf, layout = row.leaves[leaf]
        names = {
            naming: _with_leaf(_filled(template, places), torch_leaf)
            for naming, template in zip(self.namings, row.names, strict=True)
            if template is not None
        }
        return names, layout

    def name_of(self, path: str, *, variant: str, naming: str = "") -> tuple[str, Layout]:
        """Return the name of one of our arrays in one naming, and its layout there.

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

    def read(self, name: str) -> list[Meaning]:
        """Return everything that a name of a checkpoint can stand for; [] for nothing."""
        found = []
        dots = [0, *(i for i, letter in enumerate(name) if letter == ".")]
        for entry in (entry for dot in dots for entry in self._by_ending.get(name[dot:], ())):
            match = _pattern(entry.template).fullmatch(name)
            if match:
                places = {key: int(number) for key, number in match.groupdict().items()}
                if "S" in places:
                    places["s"] = places["S"] - 1
                path = _filled(entry.path, places)
                found.append(Meaning(entry.naming, entry.variants, path))
        return found

    def is_ignored(self, name: str) -> bool:
        """Tell whether a name belongs to nothing that a model computes with."""
        return name.endswith(self.ignored)

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
                by_path.setdefault(meaning.path, shape)
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
        if entry is None:
            raise ValueError(
                f"The arrays do not show which {self.family.name} it is; pass --model with one of "
                f"{', '.join(self.family.models)}."
            )
        fields = {name: value for name, value in inferred.fields.items() if value is not None}
        return self.family.config(**{**fields, **entry.fields, **given})

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
                    for naming, template in zip(self.namings, row.names, strict=True):
                        if template is not None:
                            whole = _with_leaf(template, torch_leaf)
                            having.setdefault((naming, whole, f"{row.path}/{leaf}"), []).append(
                                variant
                            )
        entries: dict[str, list[_Entry]] = {}
        for (naming, whole, path), variants in having.items():
            entry = _Entry(naming, frozenset(variants), whole, path)
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


def _filled(template: str, places: Mapping[str, int]) -> str:
    stage = places.get("s", 0)
    return template.format(s=stage, S=stage + 1, b=places.get("b", 0))


def _with_leaf(name: str, leaf: str) -> str:
    return f"{name}.{leaf}" if leaf else name


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Return the regular expression of a template; every number has one spelling."""
    pattern = re.escape(template)
    for place, number in (("s", "0|[1-9][0-9]?"), ("S", "[1-9][0-9]?"), ("b", "0|[1-9][0-9]{0,2}")):
        pattern = pattern.replace(re.escape(f"{{{place}}}"), f"(?P<{place}>{number})")
    return re.compile(pattern)
