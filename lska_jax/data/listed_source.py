"""A source of chosen files, wherever their bytes lie.

Nothing is opened before it is read, and lists of files pickle into a few buffers, for worker
processes.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lska_jax.data.class_folders import readable
from lska_jax.data.sources import Extent, Record, check_index


@runtime_checkable
class FileList(Protocol):
    """Chosen files of a tree, in a fixed order."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, index: int) -> bytes:
        """Return the content of file ``index``."""

    def path(self, index: int) -> str:
        """Return what a person can look for: a file or ``archive.tar!member``."""


class ListedSource:
    """A source of chosen files, each with a label of its own.

    Attributes:
      labels: (N,) int32; or (N, K) of 0 and 1 where an image has any number of labels.
    """

    def __init__(
        self,
        name: str,
        files: FileList,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        extents: Sequence[Extent] = (),
    ) -> None:
        """Keep the list.

        Args:
          name: what is read.
          files: the images.
          labels: one for each file, see the class.
          class_names: name of each class, in label order.
          extents: which slices of what the images are, where that is known.
        """
        self.name = readable(name)
        self.class_names = tuple(map(readable, class_names))
        self.extents = tuple(extents)
        self._files = files
        self.labels = np.asarray(labels, np.int32)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Return the bytes of image ``index`` and its label."""
        check_index(index, len(self), self.name)
        return Record(self._files.read(index), int(self.labels[index]))

    def path(self, index: int) -> str:
        """Return the path of the image; names that are no text are escaped."""
        check_index(index, len(self), self.name)
        return readable(self._files.path(index))
