"""The checkpoints of dense networks: ``backbone.`` and the names of its family, and a head's own.

They are those of mmsegmentation and mmdetection. A head says in a ``HeadNames`` what its arrays are
called and what their shapes show.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from lska_jax.models.heads import BACKBONE, BACKBONE_EPSILON, Head, family_with_head, head_of, heads
from lska_jax.models.table import Family, ModelEntry, families, load
from lska_jax.weights.names.naming import Inferred, Names
from lska_jax.weights.names.rows import COUNTER, Layout, Row, Shape, as_parts

_PREFIX = f"{BACKBONE}."


class HeadNames(NamedTuple):
    """What a head's arrays are called.

    Attributes:
      rows: (path of a module here, {leaf here: (leaf in PyTorch, layout)}, name), in the order of
        the reference's state_dict.
      infer: {path: shape in PyTorch layout} -> fields of the head and ``num_classes``; None where
        shapes do not show one.
    """

    rows: tuple[tuple[str, Mapping[str, tuple[str, Layout]], str], ...]
    infer: Callable[[Mapping[str, Shape]], dict[str, Any]]


class DenseNames(Names):
    """The checkpoints of one head on one family."""

    def __init__(self, family: Family, backbone: Names, head: Head):
        self._backbone, self._head, self._own = backbone, head, load(head.names)
        # Dense code has names of its own, where a family knows them.
        namings = tuple(sorted(backbone.namings, key=lambda name: name != "detection"))
        columns = [backbone.namings.index(name) for name in namings]
        own = [Row(path, leaves, (name,) * len(namings)) for path, leaves, name in self._own.rows]
        super().__init__(
            family,
            namings=namings,
            rows={
                variant: (*(_in_backbone(row, columns) for row in rows), *own)
                for variant, rows in backbone.rows.items()
            },
            ignored=backbone.ignored,
            preprocessings={"imagenet": head.preprocessing},
        )

    def variant_of(self, config: Any) -> str:
        """Return that of the backbone."""
        return self._backbone.variant_of(config)

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read backbone and head off a checkpoint."""
        inferred = self._backbone.infer(_backbone_of(shapes))
        by_path, _ = self.by_path(shapes)
        shown = self._own.infer(by_path)
        classes = shown.pop("num_classes")
        is_clear = None not in shown.values()
        head = self._head.config(**shown) if is_clear else None
        return Inferred({**inferred.fields, "num_classes": classes, "head": head}, inferred.naming)

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> Any:
        """Return the config that a file has to fit; see ``Names.choose_config``."""
        shown = dict(inferred.fields)
        head, classes = shown.pop("head"), shown.pop("num_classes")
        of_backbone = {n: v for n, v in given.items() if n not in ("head", "num_classes")}
        known = Inferred({**shown, "num_classes": 0}, inferred.naming)
        backbone = self._backbone.choose_config(known, entry=entry, given=of_backbone)
        fields = {
            field.name: getattr(backbone, field.name) for field in dataclasses.fields(backbone)
        }
        if "layer_norm_epsilon" in fields and "layer_norm_epsilon" not in given:
            fields["layer_norm_epsilon"] = BACKBONE_EPSILON
        if classes is None or head is None:
            raise ValueError(
                f"The file does not show the sizes of its {self._head.title}: arrays are missing "
                "or have impossible shapes."
            )
        fields["num_classes"] = given.get("num_classes", classes)
        return self.family.config(**fields, head=head)

    def usual_preprocessing(self, naming: str, config: Any) -> tuple[str, str]:
        """Return that of the head's recipes."""
        del naming, config
        prepared = self.preprocessings["imagenet"]
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in prepared[:2])
        return "imagenet", f"Preprocessing: mean {mean}, std {std}, as recipes for such models."

    def import_notes(self, naming: str, config: Any) -> list[str]:
        """Return the epsilon of the backbone's LayerNorms, where it is a field."""
        del naming
        epsilon = getattr(config, "layer_norm_epsilon", None)
        return [] if epsilon is None else [f"LayerNorm epsilon {epsilon:g} in the backbone."]


def dense_names(family: Family) -> Names:
    """Return the table of a family with a head.

    Args:
      family: from ``models.heads.family_with_head``.
    """
    head = head_of(family.config())
    if head is None:
        raise ValueError(f"{family.name} has no head.")
    return _table(family.name, head.name)


@functools.cache
def _table(family: str, head: str) -> Names:
    plain = families()[family]
    return DenseNames(family_with_head(plain, head), load(plain.names), heads()[head])


def recognise_head(names: Iterable[str]) -> Head | None:
    """Return the head that most of the names beside a backbone speak for; None if fewer than half.

    Args:
      names: of arrays outside the backbone, as in "decode_head.conv_seg.weight".
    """
    given = [name for name in names if not name.endswith(COUNTER)]
    known = {head: _count(head, given) for head in heads().values() if head.names}
    best = max(known, key=lambda head: known[head], default=None) if given else None
    return best if best is not None and 2 * known[best] >= len(given) else None


def has_backbone(names: Iterable[str]) -> bool:
    """Tell whether names are those of a dense network: a backbone and something beside it."""
    inside = [name.startswith(_PREFIX) for name in names]
    return any(inside) and not all(inside)


def split_names(shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], list[str]]:
    """Return a dense network's backbone without its prefix, and the names beside it."""
    return _backbone_of(shapes), [name for name in shapes if not name.startswith(_PREFIX)]


def _backbone_of(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {n.removeprefix(_PREFIX): s for n, s in shapes.items() if n.startswith(_PREFIX)}


def _count(head: Head, names: list[str]) -> int:
    own: HeadNames = load(head.names)
    known = {
        f"{name}.{torch_leaf}" for _, leaves, name in own.rows for torch_leaf, _ in leaves.values()
    }
    return sum(name in known for name in names)


def _in_backbone(row: Row, columns: list[int]) -> Row:
    """Return a family's row under the prefix, its namings in another order."""
    names = [
        None
        if row.names[column] is None
        else tuple(_PREFIX + p for p in as_parts(row.names[column]))
        for column in columns
    ]
    whole = tuple(n[0] if n is not None and len(n) == 1 else n for n in names)
    return Row(f"{BACKBONE}/{row.path}", row.leaves, whole)
