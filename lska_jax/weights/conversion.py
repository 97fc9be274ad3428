"""Arrays of a PyTorch checkpoint turned into a model's: all of them, or a list of what differs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lska_jax.weights.names.naming import Names
from lska_jax.weights.names.rows import Layout

# What weights are stored in; all of it is read as float32.
FLOATING_DTYPES = ("float32", "float16", "bfloat16", "float64")


class StoredArray(NamedTuple):
    """An array of a checkpoint, read when its name and shape are known to be right.

    Attributes:
      shape: in PyTorch layout.
      dtype: its name, as in "float32".
      read: returns the array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class _Match(NamedTuple):
    """An array of the model and the names that it has in the file, several if it is in parts."""

    path: str
    names: tuple[str, ...]
    layout: Layout


def stored(array: Any) -> StoredArray:
    """Return an array in memory as a ``StoredArray``."""
    values = np.asarray(array)
    return StoredArray(values.shape, values.dtype.name, lambda: values)


def check_fit(
    given: Mapping[str, StoredArray],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    names: Names,
    variant: str,
    naming: str = "",
    refusal: str,
) -> None:
    """Refuse a checkpoint whose names, shapes or dtypes do not fit; no array is read.

    Arguments and errors are those of ``convert``.
    """
    _refuse(refusal, _match(given, wanted, names, variant=variant, naming=naming)[1])


def convert(
    given: Mapping[str, StoredArray],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    names: Names,
    variant: str,
    naming: str = "",
    refusal: str,
    show_progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> dict[str, np.ndarray]:
    """Return a model's arrays, taken from a checkpoint of any naming.

    Names, shapes and dtypes are compared before any array is read.

    Args:
      given: {name in the checkpoint: array}; those that the family ignores may be among them.
      wanted: {path: shape} of the model, in our layout.
      names: of the model's family.
      variant: of the model.
      naming: of the checkpoint, in which a name is read where it means another array in another
        naming, and by which missing arrays are called; "" is that of most of its names.
      refusal: first line of the error.
      show_progress: wraps the list of arrays to be read.

    Returns:
      {path: array} float32 in our layout, C-contiguous, for every path of ``wanted``.

    Raises:
      ValueError: names are missing, unexpected or given twice, a shape or dtype is another, or
        values are no weights (not finite, a negative variance). Every one is listed.
    """
    naming = naming or names.by_path({name: array.shape for name, array in given.items()})[1]
    matches, problems = _match(given, wanted, names, variant=variant, naming=naming)
    _refuse(refusal, problems)
    arrays: dict[str, np.ndarray] = {}
    wrong: list[str] = []
    for match in show_progress(matches):
        parts = []
        for name in match.names:
            # A broken value ends as an infinity or NaN, which is refused in words just below.
            with np.errstate(over="ignore", invalid="ignore"):
                parts.append(given[name].read().astype(np.float32, copy=False))
            if problem := _wrong_values(name, match.path, parts[-1]):
                wrong.append(problem)
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        arrays[match.path] = np.ascontiguousarray(match.layout.array(whole))
    _refuse(refusal, [("wrong values", wrong)])
    return arrays


def _match(
    given: Mapping[str, StoredArray],
    wanted: Mapping[str, tuple[int, ...]],
    names: Names,
    *,
    variant: str,
    naming: str,
) -> tuple[list[_Match], list[tuple[str, list[str]]]]:
    matches: list[_Match] = []
    missing: list[str] = []
    wrong: list[str] = []
    twice: list[str] = []
    unused = {name for name in given if not names.is_ignored(name)}
    for path, shape in wanted.items():
        own, layout = names.names_of(path, variant=variant)
        found = [
            parts
            for parts in dict.fromkeys(own.values())
            if not unused.isdisjoint(parts) and not _is_another(parts, path, names, naming)
        ]
        if len(found) > 1:
            twice.append(" and ".join(name for parts in found for name in parts if name in unused))
        elif not found:
            missing += own.get(naming, next(iter(own.values())))
        elif absent := [name for name in found[0] if name not in unused]:
            missing += absent
        elif problems := _wrong_parts(found[0], given, layout.torch_shape(shape)):
            wrong += problems
        else:
            matches.append(_Match(path, found[0], layout))
        unused.difference_update(name for parts in found for name in parts)
    unexpected = [name for name in given if name in unused]
    return matches, [
        ("missing", missing),
        ("unexpected", unexpected),
        ("given twice under two names", twice),
        ("wrong shape or dtype", wrong),
    ]


def _is_another(parts: tuple[str, ...], path: str, names: Names, naming: str) -> bool:
    """Tell whether names of an array are those of another array in the checkpoint's naming."""
    meanings = (meaning for name in parts for meaning in names.read(name))
    return any(meaning.naming == naming and meaning.path != path for meaning in meanings)


def _wrong_parts(
    parts: tuple[str, ...], given: Mapping[str, StoredArray], whole: tuple[int, ...]
) -> list[str]:
    """Return what is wrong with the shapes and dtypes of the parts of an array of a shape."""
    expected = whole if len(parts) == 1 else (whole[0] // len(parts), *whole[1:])
    wrong = []
    for name in parts:
        array = given[name]
        if tuple(array.shape) != expected:
            wrong.append(f"{name}: {tuple(array.shape)}, expected {expected}")
        elif array.dtype not in FLOATING_DTYPES:
            allowed = ", ".join(FLOATING_DTYPES)
            wrong.append(f"{name}: dtype {array.dtype}, expected floating point ({allowed})")
    return wrong


def _wrong_values(name: str, path: str, values: np.ndarray) -> str | None:
    if not np.isfinite(values).all():
        count = int(np.size(values) - np.isfinite(values).sum())
        return f"{name}: {count} of {values.size} values are not finite in float32"
    if path.endswith("/var") and (values < 0).any():
        return f"{name}: {int((values < 0).sum())} variances are negative"
    return None


def _refuse(refusal: str, problems: list[tuple[str, list[str]]]) -> None:
    lines = list(_listed(problems))
    if lines:
        raise ValueError("\n".join([refusal, *lines]))


def _listed(problems: list[tuple[str, list[str]]]) -> Iterator[str]:
    for title, entries in problems:
        if entries:
            yield f"{title} ({len(entries)}):\n  " + "\n  ".join(entries)
