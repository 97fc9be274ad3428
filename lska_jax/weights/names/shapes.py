"""Sizes read off the shapes of a checkpoint's arrays, by our paths and in PyTorch layout."""

from collections import Counter
from collections.abc import Iterable, Mapping

from lska_jax.weights.names.rows import Shape


def count(numbers: set[int]) -> int:
    """Return how many there are from 0 on, gaps included unless a number is far off."""
    expected = max(numbers, default=-1) + 1
    return expected if expected <= 2 * len(numbers) else len(numbers)


def block_counts(by_path: Mapping[str, Shape]) -> tuple[int, ...]:
    """Return the blocks of every stage, of paths such as ``stages/0/blocks/1/norm/scale``."""
    places = [path.split("/") for path in by_path if path.startswith("stages/")]
    stages = range(count({int(place[1]) for place in places}))
    return tuple(
        count({int(p[3]) for p in places if p[1] == str(stage) and p[2] == "blocks"})
        for stage in stages
    )


def axis(by_path: Mapping[str, Shape], path: str, index: int) -> int | None:
    """Return the length of one axis of an array, or None if the array or axis is missing."""
    shape = by_path.get(path, ())
    return shape[index] if len(shape) > index else None


def usual_axis(by_path: Mapping[str, Shape], beginning: str, ending: str, index: int) -> int | None:
    """Return the length of one axis that most arrays have whose paths begin and end like that."""
    return most_common(
        shape[index]
        for path, shape in by_path.items()
        if path.startswith(beginning) and path.endswith(ending) and len(shape) > index
    )


def ratio_of_stage(
    by_path: Mapping[str, Shape], stage: int, ending: str, channels: int | None
) -> int | None:
    """Return how many times its channels most arrays with an ending have in a stage, if whole."""
    hidden = usual_axis(by_path, f"stages/{stage}/", ending, 0)
    return hidden // channels if hidden and channels and hidden % channels == 0 else None


def most_common(values: Iterable[int]) -> int | None:
    """Return the value that occurs most often, or None of none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None
