"""What a table of names is made of: modules, their names in each naming, their arrays' layouts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]

# Counters of PyTorch's BatchNorm, which nothing here reads.
COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Layout:
    """An array's axes in PyTorch against ours.

    Attributes:
      axes: the PyTorch axis of each of our axes, those of ``ones`` first.
      ones: how many of the first of ``axes`` have length 1 in PyTorch and are dropped here.
    """

    axes: tuple[int, ...]
    ones: int = 0

    @property
    def ndim(self) -> int:
        """Number of axes in PyTorch."""
        return len(self.axes)

    def array(self, torch_array: np.ndarray) -> np.ndarray:
        """Turn a PyTorch array into ours, a view of it."""
        turned = np.transpose(torch_array, self.axes)
        return turned[(0,) * self.ones] if self.ones else turned

    def torch_array(self, array: np.ndarray) -> np.ndarray:
        """Turn an array of ours into PyTorch's, contiguous."""
        whole = array.reshape((1,) * self.ones + array.shape)
        # Not np.ascontiguousarray, which makes vectors of scalars.
        return np.array(np.transpose(whole, np.argsort(self.axes)), order="C")

    def torch_shape(self, shape: Sequence[int]) -> Shape:
        """Turn a shape of ours into PyTorch's."""
        whole = (1,) * self.ones + tuple(shape)
        return tuple(whole[axis] for axis in np.argsort(self.axes))


class Row(NamedTuple):
    """One module: its path, its arrays, and its name in each naming.

    Templates of paths and names have {b} for the block, from 0, and for the stage {s} from 0,
    {S} from 1, or {P} for the number of the stage ahead.

    Attributes:
      path: of the module here, a template; "" is the network itself.
      leaves: {leaf here: (leaf in PyTorch, layout)}.
      names: of the module in each naming, templates; None where a naming does not have it. Several
        in a tuple are parts: its arrays are theirs, joined along PyTorch's axis 0.
    """

    path: str
    leaves: Mapping[str, tuple[str, Layout]]
    names: tuple[str | tuple[str, ...] | None, ...]


VECTOR = Layout((0,))
BIAS = {"bias": ("bias", VECTOR)}
NORM = {"scale": ("weight", VECTOR), **BIAS}
BATCH_NORM = {**NORM, "mean": ("running_mean", VECTOR), "var": ("running_var", VECTOR)}
# (out, in / groups, kh, kw) -> (kh, kw, in / groups, out)
CONV = {"kernel": ("weight", Layout((2, 3, 1, 0))), **BIAS}
# A 1x1 convolution is a matrix product over channels here.
CONV_1X1 = {"kernel": ("weight", Layout((2, 3, 1, 0), ones=2)), **BIAS}
MATRIX = {"kernel": ("weight", Layout((1, 0))), **BIAS}


def as_parts(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return a row's entry for one naming as the parts that it is stored in; () if it has none."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else names
