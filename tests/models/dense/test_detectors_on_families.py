"""Dense networks on backbones of several families: maps, sizes, losses, gradients."""

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.models.build import build
from lska_jax.models.dense.detector import Truth
from lska_jax.models.heads import backbone_config, family_with_head
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.tasks.segmentation import weighted_cross_entropy

pytestmark = pytest.mark.slow

SMALL = {
    "retinanet": {"pyramid_channels": 8, "tower_depth": 1, "candidates": 20, "max_detections": 10},
    "mask_rcnn": {
        **{"pyramid_channels": 8, "hidden_channels": 8, "mask_depth": 1, "samples": 8},
        **{"train_candidates": 16, "test_candidates": 16, "proposals": 8, "max_detections": 10},
    },
}
# Stages of its small network, where those of the record are too few.
FIELDS = {"unireplknet": {"dims": (4, 8), "depths": (1, 1), "large_every": (1, 1)}}

each_family = pytest.mark.parametrize(
    "record",
    [
        families.CONVNEXT,
        families.SWIN,
        families.PVT_V2,
        families.INCEPTION_NEXT,
        families.UNIREPLKNET,
    ],
    ids=lambda record: record.family.name,
)


def network_of(record, head):
    family = family_with_head(record.family, head["name"])
    own = FIELDS.get(record.family.name, {})
    config = family.config(**{**record.narrow, **own, "head": head})
    return build(config, rngs=nnx.Rngs(0))


def odd_images(network):
    """Return two images of sides that are no multiples of any stride but the family's own."""
    multiple = type(network.config).family.image_multiple(vars(network.config))
    height, width = 67 // multiple * multiple, 93 // multiple * multiple
    return jax.random.normal(jax.random.key(1), (2, height, width, 3))


def truth_of(images):
    _, height, width, _ = images.shape
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[0, :2] = [[4, 5, 40, 30], [30, 20, 62, 60]]
    masks = np.zeros((2, 3, height, -(-width // 8)), np.uint8)
    masks[0, 0, 5:30, :4] = masks[0, 1, 20:60, 4:7] = 255
    is_box = np.array([[True, True, False], [False] * 3])
    labels = np.array([[1, 4, 0], [0, 0, 0]], np.int32)
    sizes = np.array([[height, width]] * 2, np.int32)
    return Truth(*map(jnp.asarray, (boxes, labels, is_box, sizes, np.ones(2, bool), masks)))


@each_family
@pytest.mark.parametrize("head", SMALL)
def test_any_family_with_stages_carries_a_detector_at_odd_sizes(record, head):
    network = network_of(record, {"name": head, **SMALL[head]})
    images = odd_images(network)
    functions, stats = ModelFunctions(network), batch_stats(network)

    @jax.jit
    def run(params, images, truth):
        def total(params):
            losses, _ = functions.train(
                params, stats, images, truth, key=jax.random.key(2), method="losses"
            )
            return sum(losses.values()), losses

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, losses), gradients = run(parameters(network), images, truth_of(images))
    assert all(loss > 0 and jnp.isfinite(loss) for loss in losses.values())
    assert all(jnp.isfinite(array).all() for array in gradients.values())
    assert sum(bool(jnp.any(array)) for array in gradients.values()) > len(gradients) / 2
    network.eval()
    found = nnx.jit(lambda network, images: network(images))(network, images)
    assert found.boxes.shape == (2, 10, 4)
    assert jnp.isfinite(found.boxes).all() and jnp.isfinite(found.scores).all()
    assert (found.boxes[..., 2] <= images.shape[2]).all()


@each_family
@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_any_family_with_stages_carries_a_segmentor_at_odd_sizes(record, head):
    network = network_of(record, {"name": head, "channels": 8})
    images = odd_images(network)
    functions, stats = ModelFunctions(network), batch_stats(network)
    labels = jnp.asarray(np.arange(images[..., 0].size).reshape(images.shape[:3]) % 5, jnp.uint8)

    @jax.jit
    def run(params, images, labels):
        def total(params):
            outputs, _ = functions.train(
                params, stats, images, key=jax.random.key(2), method="all_logits"
            )
            weights = jnp.full((2,), 1 / labels.size, jnp.float32)
            return sum(weighted_cross_entropy(logits, labels, weights) for logits in outputs)

        return jax.value_and_grad(total)(params)

    loss, gradients = run(parameters(network), images, labels)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(array).all() for array in gradients.values())


@each_family
def test_the_maps_of_a_dense_network_are_its_backbones_by_name(record):
    network = network_of(record, {"name": "retinanet", **SMALL["retinanet"]})
    images = odd_images(network)
    maps = network.features(images)
    names = [one.name for one in network.pyramid]
    assert list(maps._fields) == names
    assert names == [f"stage{number}" for number in range(1, len(names) + 1)]
    alone = build(backbone_config(network.config), rngs=nnx.Rngs(0))
    assert [one.name for one in alone.feature_info] == names
    for one, features in zip(network.pyramid, maps, strict=True):
        assert features.shape[-1] == one.channels
