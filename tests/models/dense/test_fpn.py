"""Feature pyramids against stored outputs of the reference, at odd sizes."""

import golden_weights
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.models.dense.fpn import FPN
from lska_jax.nn.functional import assign, flat_values
from lska_jax.weights.names.rows import CONV, CONV_1X1

CHANNELS = (32, 64, 160, 256)


def golden_pyramid(extra: str, channels: tuple[int, ...]) -> FPN:
    pyramid = nnx.eval_shape(lambda: FPN(channels, extra=extra, rngs=0))
    arrays = {}
    for path, array in flat_values(nnx.state(pyramid, nnx.Param)).items():
        place, number, leaf = path.split("/")
        name = {"laterals": "lateral_convs", "outputs": "fpn_convs"}[place]
        torch_leaf, layout = (CONV_1X1 if place == "laterals" else CONV)[leaf]
        name = f"{name}.{number}.conv.{torch_leaf}"
        value = golden_weights.weight(name, layout.torch_shape(array.shape))
        arrays[path] = jnp.asarray(layout.array(value), jnp.float32)
    assign(pyramid, arrays)
    return pyramid


@pytest.mark.parametrize(
    ("variant", "extra", "first"),
    [("segmentation", "none", 0), ("mask_rcnn", "pool", 0), ("retinanet", "conv", 1)],
)
def test_maps_are_those_of_the_reference_at_odd_sizes(variant, extra, first):
    with np.load(golden_weights.GOLDEN / "dense" / "ops_fpn.npz") as stored:
        expected = [stored[name] for name in stored.files if name.startswith(f"{variant}/")]
        shapes = zip(CHANNELS, stored["sizes"], strict=True)
        inputs = [
            golden_weights.normal(f"dense/fpn/c{number}", (1, channels, *map(int, size)))
            for number, (channels, size) in enumerate(shapes)
        ]
    expected = [array for array in expected if array.ndim == 4]
    maps = [jnp.asarray(array.transpose(0, 2, 3, 1)) for array in inputs]
    outputs = golden_pyramid(extra, CHANNELS[first:])(maps[first:])
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours[..., ::16], theirs, atol=1e-5 * abs(theirs).max())


def test_another_number_of_maps_is_refused():
    pyramid = nnx.eval_shape(lambda: FPN((2, 4), 3, rngs=0))
    with pytest.raises(ValueError, match="takes 2 maps, got 1"):
        pyramid([jnp.zeros((1, 4, 4, 2))])
