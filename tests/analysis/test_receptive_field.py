"""The effective receptive field: of linear networks it is known, and so are its squares."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lska_jax import create_model
from lska_jax.analysis.receptive_field import contributions, extents, receptive_field


def convolve(x, kernel, dilation):
    """Return a depth-wise convolution of (B, H, W, C) that keeps the size, as XLA has it."""
    return lax.conv_general_dilated(
        x,
        jnp.tile(kernel[:, :, None, None], (1, 1, 1, x.shape[-1])),
        window_strides=(1, 1),
        padding="SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def test_that_of_a_linear_network_is_its_kernels_convolved():
    rng = np.random.default_rng(0)
    local, dilated = (rng.uniform(0.1, 1, (3, 3)).astype(np.float32) for _ in range(2))
    dilation, side, colours = 3, 15, 2

    def maps(_, images):
        first = convolve(images, jnp.asarray(local), 1)
        return [first, convolve(first, jnp.asarray(dilated), dilation)]

    # Positive images and kernels: no sign is lost in either relu.
    images = rng.uniform(1, 2, (2, side, side, colours)).astype(np.float32)
    first, second = contributions(maps, None, images, count=2)

    # What a pixel at an offset gives the centre is the kernel at that offset.
    spread = np.zeros((7, 7))
    spread[::dilation, ::dilation] = dilated
    whole = np.zeros((9, 9))
    for (row, column), weight in np.ndenumerate(spread):
        whole[row : row + 3, column : column + 3] += weight * local
    for found, kernel in ((first, local), (second, whole)):
        margin = (side - len(kernel)) // 2
        np.testing.assert_allclose(found, colours * np.pad(kernel, margin), rtol=1e-6)


def test_a_square_holds_more_than_its_share():
    field = np.zeros((21, 21))
    field[10, 10], field[10, 13], field[4, 10] = 5.0, 4.0, 1.0
    found = extents(field, shares=(0.4, 0.5, 0.9, 0.95), is_logarithmic=False)
    assert [extent.side for extent in found] == [3, 7, 13, 13]
    assert found[1].area_ratio == 49 / 441


def test_a_share_that_no_square_holds_has_none():
    field = np.zeros((9, 9))
    field[0, 0] = 1.0
    assert extents(field, shares=(0.2,))[0].side is None


def test_logarithmic_scores_are_those_of_the_published_tables():
    field = np.zeros((9, 9))
    field[4, 4], field[4, 7] = 99.0, 9.0  # 2 and 1 in powers of ten
    assert [e.side for e in extents(field, shares=(0.65, 0.7))] == [3, 7]


@pytest.mark.slow
def test_every_map_of_a_network_has_one_and_later_ones_are_no_smaller():
    small = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "num_classes": 5}
    network = create_model("van_lska_tiny", k=7, stem_stride=2, **small)
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    found = receptive_field(network, images)
    assert list(found) == ["stage1", "stage2"]
    seen = [np.count_nonzero(field) for field in found.values()]
    assert 0 < seen[0] < seen[1]


def test_gradients_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="is not finite"):
        contributions(lambda _, x: [x / 0], None, np.ones((1, 3, 3, 1), np.float32), count=1)
