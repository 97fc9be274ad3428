"""Families of networks and their named models, as facts.

No jax here: ``list_models`` and the check of a config cost nothing. A family is two files beside
this one: ``NAME_config.py`` says what there is (config, named models, preprocessing, checks) in a
``FAMILY``, and is found by its name; ``NAME.py`` builds it. A family from elsewhere is added by
``register_family``.
"""

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from lska_jax.models.heads import family_with_head, head_config, head_section

DTYPES = ("float32", "bfloat16")
# What any config may be given beside its architecture, and what no checkpoint depends on.
COMPUTE_FIELDS = frozenset({"drop_rate", "drop_path_rate", "dtype", "remat", "implementation"})


class Preprocessing(NamedTuple):
    """How images have to be prepared for a model.

    Attributes:
      mean: of each channel, for pixels in [0, 1].
      std: of each channel, for pixels in [0, 1].
      image_size: side of the square crop, in pixels.
      crop_pct: image_size over the short side that the image is resized to.
      interpolation: filter of that resize.
      crop_mode: "center" resizes the short side and cuts out the centre, "squash" resizes both
        sides alike and distorts, "whole" keeps all of the image: it becomes as large as a short
        side of ``image_size`` and a long one of ``long_side`` allow.
      long_side: of "whole", in pixels; 0 otherwise.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_size: int = 224
    crop_pct: float = 0.9
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    long_side: int = 0

    def for_channels(self, in_channels: int) -> "Preprocessing":
        """Return the same for images of another number of channels.

        One channel takes the mean over the channels, several repeat them in turn.
        """
        if in_channels == len(self.mean):
            return self

        def adapted(values: tuple[float, ...]) -> tuple[float, ...]:
            if in_channels == 1:
                return (sum(values) / len(values),)
            return tuple(values[channel % len(values)] for channel in range(in_channels))

        return self._replace(mean=adapted(self.mean), std=adapted(self.std))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One named model.

    Attributes:
      name: as in "van_lska_tiny".
      family: name of its family.
      fields: fields of the family's config that the name stands for.
      preprocessing: of its images, unless its weights say otherwise.
    """

    name: str
    family: str
    fields: Mapping[str, Any]
    preprocessing: Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family of networks: what it is called, what it takes, and where its code is.

    Places are "module:attribute" and are imported when they are needed.

    Attributes:
      name: as in "van".
      config: frozen dataclass of everything that decides parameters and computation; it has
        ``num_classes``, ``in_channels`` and ``dtype``, and its defaults are the family's.
      models: {name: fields of the config that the name stands for}.
      preprocessing: of the images of its models.
      preprocessings: {model: preprocessing} of those that want another.
      network: place of the ``nnx.Module``, called as ``network(config, rngs=rngs)``. It has
        ``config``, ``preprocessing``, ``features(images, rngs=None)`` (see ``maps``),
        ``head(last of them)`` and ``__call__(images, rngs=None)``.
      check: fields -> what is wrong with them, one sentence each that begins with the field; types
        as well as values, since files are checked by it.
      describe: config -> the model in a few words.
      summary: config -> the first paragraph of a model card.
      stem: path of the kernel that reads the images, (..., in_channels, channels).
      head: paths of the classifier's arrays; the last axis of each is the number of classes.
      unseen: fields of the architecture that no array shows; pretrained weights take others too.
      per_stage: fields that take one value, or a tuple of one for each stage; those that the name
        decides, as an attention, may be given so too.
      names: place of the names of its PyTorch checkpoints, a ``weights.names.naming.Names``; "" if
        there are none.
      no_decay: ends of the paths of parameters that weight decay leaves alone, beside all 1-D ones.
      image_multiple: fields of the config -> what height and width of images are multiples of.
      fold: place of a function model -> model for inference with fewer operations; "" if there is
        nothing to fold.
      transfer: place of a function that carries weights over to other kernel sizes, see
        ``weights.transfer``; "" if its kernels have one size.
    """

    name: str
    config: type[Any]
    models: Mapping[str, Mapping[str, Any]]
    network: str
    check: Callable[[Mapping[str, Any]], list[str]]
    describe: Callable[[Any], str]
    summary: Callable[[Any], str]
    stem: str
    head: tuple[str, ...]
    preprocessing: Preprocessing = Preprocessing()
    preprocessings: Mapping[str, Preprocessing] = dataclasses.field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    per_stage: tuple[str, ...] = ()
    names: str = ""
    no_decay: tuple[str, ...] = ()
    image_multiple: Callable[[Mapping[str, Any]], int] = lambda fields: 1
    fold: str = ""
    transfer: str = ""

    @property
    def architecture_fields(self) -> tuple[str, ...]:
        """Fields that decide which arrays there are and what is computed from them."""
        return tuple(name for name in self.defaults if name not in COMPUTE_FIELDS)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every field of the config with its default."""
        return {field.name: field.default for field in dataclasses.fields(self.config)}

    @property
    def section_fields(self) -> dict[str, Any]:
        """Defaults of a run's ``config.model`` beside ``name``.

        What the name decides is () or None there, which leaves it to the name; words, as an
        attention is, are the name's alone where they are not given stage by stage.
        """
        named = {name: value for fields in self.models.values() for name, value in fields.items()}
        words = {name for name, value in named.items() if isinstance(value, str)}
        words -= set(self.per_stage)
        left = {
            name: () if isinstance(value, tuple) or name in self.per_stage else None
            for name, value in named.items()
        }
        return {n: left.get(n, default) for n, default in self.defaults.items() if n not in words}

    def type_of(self, field: str) -> type[Any]:
        """Return the type of a field's values other than None."""
        hint = get_type_hints(self.config)[field]
        return next(kind for kind in get_args(hint) or (hint,) if kind is not type(None))


_registered: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Add a family from outside this package; the same one may be registered again.

    Raises:
      ValueError: its name, or one of its models' names, is taken by another family.
    """
    others = [known for known in families().values() if known.name != family.name]
    taken = [name for known in others for name in known.models if name in family.models]
    if taken or family.name in _built_in():
        raise ValueError(
            f"Family {family.name!r} cannot be registered: {', '.join(taken) or family.name} is "
            "taken. Choose another name."
        )
    _registered[family.name] = family


def families() -> dict[str, Family]:
    """Return all families by name."""
    return {**_built_in(), **_registered}


@functools.cache
def _built_in() -> dict[str, Family]:
    package = importlib.import_module("lska_jax.models")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = (n for n in names if n.endswith("_config"))
    found = [importlib.import_module(f"lska_jax.models.{name}").FAMILY for name in modules]
    return {family.name: family for family in found}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern such as ``van_lska_*``."""
    names = (name for family in families().values() for name in family.models)
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def model_entry(name: str) -> ModelEntry:
    """Return a named model's facts, its preprocessing among them.

    Raises:
      ValueError: no model has this name; the message suggests the closest.
    """
    for family in families().values():
        if name in family.models:
            return ModelEntry(
                name=name,
                family=family.name,
                fields=family.models[name],
                preprocessing=family.preprocessings.get(name, family.preprocessing),
            )
    close = difflib.get_close_matches(str(name), list_models(), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else "See lska_jax.list_models()."
    raise ValueError(f"Unknown model {name!r}. {hint}")


def family_of(config: Any) -> Family:
    """Return the family that a config, or a model, is of.

    Raises:
      TypeError: it is of none.
    """
    kind = type(getattr(config, "config", config))
    if hasattr(kind, "backbone_kind"):
        # Of a network with a head, see ``heads``.
        composed: Family = kind.family
        return composed
    for family in families().values():
        if kind is family.config:
            return family
    raise TypeError(
        f"{kind.__name__} is the config of no family; there are {', '.join(families())}."
    )


def named_model(config: Any) -> str | None:
    """Return the name of the model that a config is, whatever its classes and kernels, or None."""
    family = family_of(config)
    for name, fields in family.models.items():
        if all(getattr(config, field) == value for field, value in fields.items()):
            return name
    return None


def section_of(name: str, **fields: Any) -> dict[str, Any]:
    """Return a run's ``config.model`` for a named model: its name and the family's own fields.

    Args:
      name: of the model.
      **fields: values that replace the family's defaults; ``head``, the name or the section of
        one, puts it on the model, see ``heads``.

    Raises:
      ValueError: an unknown name, or a field that the family does not have.
    """
    family = _family_of_section({"name": name, **fields})
    section = {"name": name, **family.section_fields}
    check_fields(family, fields, allowed=section)
    section |= fields
    return {**section, "head": head_section(section["head"])} if "head" in section else section


def section_for(config: Any) -> dict[str, Any]:
    """Return a run's ``config.model`` for a network's config; ``fields_of`` turns it back.

    Its name is that of the named model that comes closest; what differs from it stands beside.

    Args:
      config: of any family.
    """
    family = family_of(config)

    def differing(name: str) -> list[str]:
        named = {**family.defaults, **family.models[name]}
        return [field for field, value in named.items() if getattr(config, field) != value]

    name = min(family.models, key=lambda name: len(differing(name)))
    return section_of(name, **{field: getattr(config, field) for field in differing(name)})


def fields_of(section: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """Return the family and the config's fields that a run's ``config.model`` stands for.

    Args:
      section: as ``section_of`` makes it; what is missing has its default.

    Raises:
      ValueError: an unknown name, or a field that the family does not have.
    """
    entry = model_entry(section["name"])
    family = _family_of_section(section)
    given = {name: value for name, value in section.items() if name != "name"}
    check_fields(family, given, allowed=family.section_fields)
    replaced = {
        n: v for n, v in plain(given).items() if n not in entry.fields or v not in ((), None)
    }
    fields = {**family.defaults, **entry.fields, **replaced}
    return family, {**fields, "head": head_config(fields["head"])} if "head" in fields else fields


def _family_of_section(section: Mapping[str, Any]) -> Family:
    family = families()[model_entry(section["name"]).family]
    composed: Family = family_with_head(family, section["head"]) if section.get("head") else family
    return composed


def check_fields(family: Family, given: Mapping[str, Any], *, allowed: Mapping[str, Any]) -> None:
    """Refuse fields that a family does not have.

    Raises:
      ValueError: naming them, and those that it has.
    """
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ValueError(
            f"{family.name} has no {', '.join(unknown)}; it has {', '.join(sorted(allowed))}."
        )


def load(place: str) -> Any:
    """Return what a place, "module:attribute", stands for."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_capability(family: Family, capability: str) -> Any:
    """Return what a family has in one of its optional places.

    Args:
      family: the family.
      capability: "names", "fold" or "transfer".

    Raises:
      ValueError: the family has none; the message names the families that do.
    """
    place = getattr(family, capability)
    if place and capability == "names" and hasattr(family.config, "backbone_kind"):
        # Made for one family and one head.
        return load(place)(family)
    if not place:
        have = [other.name for other in families().values() if getattr(other, capability)]
        lack = {
            "names": "no PyTorch checkpoints that could be read or written",
            "fold": "nothing to fold for inference",
            "transfer": "no kernels that could be carried over to another size",
        }[capability]
        what = family.name
        if hasattr(family.config, "backbone_kind"):
            what += " with a head for dense prediction"
        raise ValueError(f"{what} has {lack}; these families have: {', '.join(have)}.")
    return load(place)


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with lists and arrays as tuples, NumPy's numbers as Python's, dtypes by name.

    Configs are compared, hashed and written as JSON.
    """
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return tuple(_plain(entry) for entry in value)


def dtype_name(dtype: Any) -> Any:
    """Return the name of a dtype given as a name, a NumPy dtype, or a scalar type of jax.numpy."""
    if isinstance(dtype, str):
        return dtype
    return getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)
