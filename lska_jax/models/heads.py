"""Heads that turn the maps of any family's network into something else than classes.

A dense network is a family's network, its *backbone*, with a *head*. Its config is the family's
with one more field, ``head``; a run's ``config.model`` has a group of that name:

    config.model = model_section("van_lska_tiny", head="semantic_fpn", num_classes=150)
    config.model.head.channels = 64

A head is two files in ``models/dense``: ``NAME_config.py`` says what it is in a ``HEAD``, without
jax, and is found by its name; ``NAME.py`` builds it. A third, ``weights/names/NAME.py``, has the
names of its arrays in checkpoints.
"""

import dataclasses
import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

# Of the LayerNorms of a backbone, where its family has the field: what dense code has.
BACKBONE_EPSILON = 1e-5
BACKBONE = "backbone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The fields of a head; each head has a class of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """One kind of head: what it is called, what it takes, and where its code is.

    Attributes:
      name: as in "semantic_fpn".
      title: as in "Semantic FPN".
      task: what it is trained for, "segmentation" or "detection".
      config: its ``HeadConfig``.
      network: place, "module:attribute", of the whole network, a ``dense.network.DenseNetwork``
        that is called as ``network(config, rngs=rngs)``.
      check: fields of the head -> what is wrong with them, one sentence each.
      summary: the first sentence of a model card.
      classes: paths of the arrays whose last axis grows with the number of classes.
      num_classes: unless a config says otherwise.
      names: place of the names of its arrays, a ``weights.names.dense.HeadNames``; "" if there are
        no checkpoints of it.
      preprocessing: of the images, a ``table.Preprocessing``.
    """

    name: str
    title: str
    task: str
    config: type[HeadConfig]
    network: str
    check: Callable[[Mapping[str, Any]], list[str]]
    summary: str
    classes: tuple[str, ...]
    num_classes: int
    names: str
    preprocessing: Any

    @property
    def defaults(self) -> dict[str, Any]:
        """Every field with its default."""
        return {field.name: field.default for field in dataclasses.fields(self.config)}


@functools.cache
def heads() -> dict[str, Head]:
    """Return all heads by name."""
    package = importlib.import_module("lska_jax.models.dense")
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    found = [
        importlib.import_module(f"{package.__name__}.{name}").HEAD
        for name in modules
        if name.endswith("_config")
    ]
    return {head.name: head for head in found}


def head_entry(name: str) -> Head:
    """Return a head by its name.

    Raises:
      ValueError: there is none; the message suggests the closest.
    """
    if name in heads():
        return heads()[name]
    close = difflib.get_close_matches(str(name), heads(), n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Allowed: {', '.join(heads())}."
    raise ValueError(f"Unknown head {name!r}. {hint}")


def head_of(config: Any) -> Head | None:
    """Return the head of a network's config, or of a network; None of a classifier."""
    own = getattr(getattr(config, "config", config), "head", None)
    return head_entry(_name_of(own)) if isinstance(own, HeadConfig) else None


def head_config(head: Any) -> HeadConfig:
    """Return a head's config from its name, its section, or itself.

    Raises:
      ValueError: an unknown name or field.
    """
    if isinstance(head, HeadConfig):
        return head
    given = {"name": head} if isinstance(head, str) else dict(head)
    entry = head_entry(given.pop("name", ""))
    unknown = sorted(set(given) - set(entry.defaults))
    if unknown:
        raise ValueError(
            f"{entry.name} has no {', '.join(unknown)}; it has {', '.join(entry.defaults)}."
        )
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return entry.config(**fields)


def head_section(head: Any) -> dict[str, Any]:
    """Return a head's name and all of its fields, as a run's ``config.model.head`` has them."""
    config = head_config(head)
    return {"name": _name_of(config), **vars(config)}


def _name_of(config: HeadConfig) -> str:
    return next(name for name, head in heads().items() if type(config) is head.config)


_composed: dict[tuple[type, str], Any] = {}


def family_with_head(family: Any, head: Any) -> Any:
    """Return the family of the networks that have a family's as backbone, and a head.

    Args:
      family: a ``table.Family``.
      head: name, section or config of the head.

    Raises:
      ValueError: there is no such head, or it has no such fields.
    """
    entry = head_entry(_name_of(head_config(head)))
    key = (family.config, entry.name)
    if key not in _composed:
        _composed[key] = _compose(family, entry)
    return _composed[key]


def backbone_config(config: Any) -> Any:
    """Return the config of a dense network's backbone, which has no classes."""
    kind = config.backbone_kind
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
    return kind(**{**fields, "num_classes": 0})


def _compose(family: Any, head: Head) -> Any:
    kind = _config_with_head(family, head)

    def check(fields: Mapping[str, Any]) -> list[str]:
        own = {name: value for name, value in fields.items() if name != "head"}
        problems = family.check(own)
        if own["num_classes"] == 0:
            problems.append("num_classes=0 must be at least 1.")
        return problems + [f"head.{p}" for p in head.check(vars(head_config(fields["head"])))]

    composed = dataclasses.replace(
        family,
        config=kind,
        network=head.network,
        check=check,
        describe=lambda config: f"{head.title} on {family.describe(config)}",
        summary=lambda config: f"{head.summary}\n\nIts backbone: {family.summary(config)}",
        stem=f"{BACKBONE}/{family.stem}",
        head=head.classes,
        preprocessing=head.preprocessing,
        preprocessings={},
        names="lska_jax.weights.names.dense:dense_names" if family.names and head.names else "",
        fold="",
        transfer="",
    )
    kind.family = composed
    return composed


def _config_with_head(family: Any, head: Head) -> Any:
    base = family.config
    own: list[tuple[str, type, Any]] = [
        ("head", HeadConfig, head.config()),
        ("num_classes", int, head.num_classes),
    ]
    if "layer_norm_epsilon" in family.defaults:
        own.append(("layer_norm_epsilon", float, BACKBONE_EPSILON))

    def check_all(self: Any) -> None:
        object.__setattr__(self, "head", head_config(self.head))
        base.__post_init__(self)

    kind: Any = dataclasses.make_dataclass(
        f"{head.config.__name__}On{base.__name__}",
        own,
        bases=(base,),
        frozen=True,
        kw_only=True,
        namespace={"__post_init__": check_all, "__doc__": f"{base.__name__} with a head."},
    )
    kind.__module__ = __name__
    kind.backbone_kind = base
    return kind
