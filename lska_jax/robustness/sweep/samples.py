"""One image of a sweep as every generated cell showed it to the models."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.corruptions import ALL_CORRUPTIONS, SEVERITIES
from lska_jax.robustness.corruptions.sheet import draw_sheet

SHEET_NAME = "samples.png"
_CLEAN = "clean"


class Samples:
    """A folder of samples, one PNG file for each cell, and the sheet that shows them."""

    def __init__(self, folder: Path):
        """Take a folder, which is made with the first sample."""
        self._folder = folder

    def add(self, cell: Cell, clean: jax.Array, corrupted: jax.Array) -> None:
        """Save the first image of a batch, corrupted, and once as it was.

        Args:
          cell: that the images are of.
          clean: (B, H, W, 3) uint8.
          corrupted: the same after corruption.
        """
        self._save(f"{cell.part}_{cell.severity}", corrupted)
        if not self._path(_CLEAN).exists():
            self._save(_CLEAN, clean)

    def write_sheet(self, path: Path) -> None:
        """Draw all samples that there are, one row a corruption; nothing where there is none."""
        rows = {}
        for name in ALL_CORRUPTIONS:
            tiles = {
                f"severity {severity}": self._read(f"{name}_{severity}")
                for severity in SEVERITIES
                if self._path(f"{name}_{severity}").exists()
            }
            if tiles:
                rows[name] = {name: self._read(_CLEAN), **tiles}
        if rows:
            draw_sheet(rows).save(path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"

    def _save(self, name: str, images: jax.Array) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        first = np.asarray(images.addressable_shards[0].data[0])
        Image.fromarray(first).save(self._path(name))

    def _read(self, name: str) -> np.ndarray:
        with Image.open(self._path(name)) as image:
            return np.asarray(image.convert("RGB"))
