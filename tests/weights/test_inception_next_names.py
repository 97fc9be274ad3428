"""InceptionNeXt's names: those of timm's and the authors' checkpoints, in and out."""

import numpy as np
import pytest

from lska_jax.models.build import array_shapes
from lska_jax.models.inception_next_config import InceptionNeXtConfig
from lska_jax.weights.names.inception_next import NAMES
from lska_jax.weights.state_dict import name_arrays

SMALL = {
    "dims": (8, 16),
    "depths": (1, 2),
    "mlp_ratios": (2, 3),
    "band_size": 5,
    "branch_divisor": 4,
    "patch_size": 2,
    "num_classes": 6,
    "in_channels": 1,
}


def torch_shapes(config) -> dict[str, tuple[int, ...]]:
    arrays = {p: np.empty(shape, np.float32) for p, shape in array_shapes(config).items()}
    return {name: array.shape for name, array in name_arrays(config, arrays).items()}


def test_a_file_that_lacks_arrays_is_refused_with_what_is_unclear():
    shapes = torch_shapes(InceptionNeXtConfig(**SMALL))
    shapes = {name: shape for name, shape in shapes.items() if "dwconv_w." not in name}
    with pytest.raises(ValueError, match="does not show the network's band_size: arrays are miss"):
        NAMES.choose_config(NAMES.infer(shapes), entry=None, given={})
