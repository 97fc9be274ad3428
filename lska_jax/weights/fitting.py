"""Which network a checkpoint holds: its family, its config, and its arrays in our layout."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.models.build import array_shapes
from lska_jax.models.table import ModelEntry, check_fields
from lska_jax.weights.conversion import FLOATING_DTYPES, StoredArray, check_fit, convert
from lska_jax.weights.names.naming import Inferred, Names, is_unclear
from lska_jax.weights.names.recognition import recognise

# Beginnings of the dtypes that quantised weights are stored in, as PyTorch and safetensors call
# them; their arrays mean nothing without scales.
_QUANTISED = (
    "int8",
    "uint8",
    "qint",
    "quint",
    "float8",
    "float4",
    "F8",
    "F6",
    "F4",
    "uint4",
    "int4",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A network that a checkpoint holds.

    Attributes:
      path: of the checkpoint.
      config: of the network.
      names: the table of its family.
      inferred: what names and shapes say.
      stored: {name: array} of the checkpoint.
    """

    path: Path
    config: Any
    names: Names
    inferred: Inferred
    stored: Mapping[str, StoredArray]

    @property
    def naming(self) -> str:
        """The naming that most names have."""
        return self.inferred.naming

    @property
    def count(self) -> int:
        """How many arrays the network has."""
        return len(array_shapes(self.config))

    def arrays(
        self, *, show_progress: Callable[[list[Any]], Iterable[Any]] = iter
    ) -> dict[str, np.ndarray]:
        """Return {path: array} float32; arguments and errors are those of ``convert``."""
        shapes = array_shapes(self.config)
        return convert(self.stored, shapes, show_progress=show_progress, **self._how())

    def check(self) -> None:
        """Refuse arrays that do not fit, before any is read; see ``convert``."""
        check_fit(self.stored, array_shapes(self.config), **self._how())

    def _how(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "variant": self.names.variant_of(self.config),
            "naming": self.naming,
            "refusal": _refusal(self.path, self.config, self.inferred, self.names),
        }


def recognise_network(stored: Mapping[str, StoredArray], path: Path) -> tuple[Names, Inferred]:
    """Return the table of a checkpoint's family, and what its names and shapes say.

    Raises:
      ValueError: no family's names, or quantised weights.
    """
    shapes = {name: array.shape for name, array in stored.items()}
    try:
        names = recognise(shapes)
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}.") from error
    quantised = [
        f"{name} ({array.dtype})"
        for name, array in stored.items()
        if array.dtype.startswith(_QUANTISED) and names.read(name)
    ]
    if quantised:
        raise ValueError(
            f"{path} holds quantised weights: {len(quantised)} arrays such as {quantised[0]}. Only "
            f"{', '.join(FLOATING_DTYPES)} can be read; take the file that was not quantised."
        )
    return names, names.infer(shapes)


def fit(
    stored: Mapping[str, StoredArray],
    path: Path,
    *,
    recognised: tuple[Names, Inferred] | None = None,
    entry: ModelEntry | None = None,
    given: Mapping[str, Any] | None = None,
) -> Fitted:
    """Return the network that a checkpoint holds, or has to hold; no array is read.

    Args:
      stored: {name: array} of the checkpoint.
      path: of the checkpoint, for messages.
      recognised: of ``recognise_network``, if it was asked before.
      entry: the named model that was asked for; None reads the network off the shapes.
      given: fields of the config that were asked for.

    Raises:
      ValueError: as ``recognise_network``; the model is of another family; or shapes and wishes
        make no network.
    """
    names, inferred = recognised or recognise_network(stored, path)
    family = names.family
    if entry is not None and entry.family != family.name:
        raise ValueError(
            f"{path} holds arrays of {family.name}, and {entry.name} is of {entry.family}. Leave "
            f"out --model, or name a model of {family.name}."
        )
    wanted = dict(given or {})
    if wanted.get("num_classes") == 0:
        stored = _without_head(stored, names)
        inferred = names.infer({name: array.shape for name, array in stored.items()})
    check_fields(family, wanted, allowed=dict.fromkeys(family.architecture_fields))
    try:
        config = names.choose_config(inferred, entry=entry, given=wanted)
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported. {error}") from error
    return Fitted(path=path, config=config, names=names, inferred=inferred, stored=stored)


def _without_head(stored: Mapping[str, StoredArray], names: Names) -> dict[str, StoredArray]:
    head = set(names.family.head)
    return {
        name: array
        for name, array in stored.items()
        if head.isdisjoint(meaning.path for meaning in names.read(name))
    }


def _refusal(path: Path, config: Any, inferred: Inferred, names: Names) -> str:
    lines = [f"{path} does not fit {names.family.describe(config)}; nothing was written."]
    differences = [
        f"{name} {getattr(config, name)}, the file's shapes say {value}"
        for name, value in inferred.fields.items()
        if name in names.family.architecture_fields
        and name not in ("num_classes", "in_channels")
        and not is_unclear(value)
        and value != getattr(config, name)
    ]
    if differences:
        lines.append("Asked for: " + "; ".join(differences) + ".")
    return "\n".join(lines)
