"""A small results file, as tests of it share it."""

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, ModelStamp, Score
from lska_jax.robustness.sweep.results_file import ResultsFile

SETTINGS = {"limit": 0, "seed": 1, "clean": "folder:x"}
STAMP = ModelStamp(name="a", sha256="0" * 64, preprocessing="crop 224", facts={"k": 23})
FOG = Cell("imagenet_c", "fog", 3)


def result(cell=FOG, **changes) -> CellResult:
    values = {
        "model": "a",
        "cell": cell,
        "provenance": "generated",
        "origin": "folder:x",
        "preprocessing": "crop 224",
        "num_images": 11,
        "scores": {"error": Score(0.25, 0.125, 0.5), "nll": Score(None)},
        "outcomes": {
            "top1": np.arange(11) % 3 == 0,
            "confidence": np.linspace(0, 1, 7, dtype=np.float32),
        },
        "seconds": 1.5,
    }
    return CellResult(**{**values, **changes})


def written(path, *, results=(), holes=()):
    with ResultsFile(path, SETTINGS) as file:
        file.add_plan([FOG, Cell("imagenet_a")])
        file.add_model(STAMP)
        for one in results:
            file.add_result(one)
        for hole in holes:
            file.add_hole(hole)
    return path
