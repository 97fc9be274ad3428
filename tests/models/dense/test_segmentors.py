"""Segmentors against stored outputs of the reference, and on backbones of several families."""

import functools
import json
import math
from typing import Any

import families
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.heads import family_with_head
from lska_jax.models.table import family_of, load_capability, section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.nn.layers import BATCH_NORM_MOMENTUM
from lska_jax.ops.resize import resize_bilinear
from lska_jax.tasks.segmentation import predict_classes, weighted_cross_entropy
from lska_jax.weights.pretrained import build_from_arrays

GOLDEN = golden_weights.GOLDEN / "dense"
# Name of the stored files, backbone, head, and the naming of the backbone's arrays.
MODELS = {
    "semfpn_lska_tiny_k23": ("van_lska_tiny", "semantic_fpn", "detection"),
    "semfpn_lka_tiny": ("van_lka_tiny", "semantic_fpn", "reference"),
    "upernet_lska_tiny_k23": ("van_lska_tiny", "upernet", "detection"),
}
# Parameters at 150 classes, measured on the reference.
COUNTS = {
    ("van_lska_tiny", "semantic_fpn"): 7_907_574,
    ("van_lska_small", "semantic_fpn"): 17_486_422,
    ("van_lska_base", "semantic_fpn"): 30_046_422,
    ("van_lka_tiny", "semantic_fpn"): 7_984_374,
    ("van_lka_small", "semantic_fpn"): 17_615_446,
    ("van_lka_base", "semantic_fpn"): 30_332_118,
    ("van_lska_tiny", "upernet"): 32_056_204,
    ("van_lska_small", "upernet"): 43_707_628,
    ("van_lska_base", "upernet"): 56_267_628,
    ("van_lka_tiny", "upernet"): 32_133_004,
    ("van_lka_small", "upernet"): 43_836_652,
    ("van_lka_base", "upernet"): 56_553_324,
}


def config_for(model: str) -> Any:
    backbone, head, _ = MODELS[model]
    return config_of(section_of(backbone, head={"name": head, "dropout_rate": 0.0}))


def named(model: str, config: Any) -> dict[str, tuple[str, Any]]:
    """Return {our path: name in the reference, layout}, in the order of its state_dict."""
    names = load_capability(family_of(config), "names")
    variant, naming = names.variant_of(config), MODELS[model][2]
    paths = names.in_order(list(array_shapes(config)), variant=variant)
    return {path: names.name_of(path, variant=variant, naming=naming) for path in paths}


@functools.cache
def loaded(model: str) -> Any:
    config, arrays = config_for(model), {}
    for path, (name, layout) in named(model, config).items():
        shape = layout.torch_shape(array_shapes(config)[path])
        arrays[path] = layout.array(golden_weights.weight(name, shape)).astype(np.float32)
    network = build_from_arrays(config, arrays, rngs=nnx.Rngs(0))
    network.eval()
    return network


def relative_error(ours: Any, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max() / abs(theirs).max())


@pytest.mark.parametrize(
    "model",
    [
        "semfpn_lska_tiny_k23",
        pytest.param("semfpn_lka_tiny", marks=pytest.mark.slow),
        pytest.param("upernet_lska_tiny_k23", marks=pytest.mark.slow),
    ],
)
def test_names_order_and_shapes_are_those_of_the_reference(model):
    config = config_for(model)
    ours = {
        name: layout.torch_shape(array_shapes(config)[path])
        for path, (name, layout) in named(model, config).items()
    }
    theirs = json.loads((GOLDEN / f"{model}.keys.json").read_text())
    kept = {name: tuple(shape) for name, shape in theirs.items() if "num_batches" not in name}
    assert list(ours.items()) == list(kept.items())


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "head"), COUNTS)
def test_parameters_are_as_many_as_the_references(backbone, head):
    shapes = array_shapes(config_of(section_of(backbone, head=head)))
    counted = [math.prod(s) for p, s in shapes.items() if not p.endswith(("/mean", "/var"))]
    assert sum(counted) == COUNTS[backbone, head]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["semfpn_lska_tiny_k23__65x97", "semfpn_lka_tiny__64x64", "upernet_lska_tiny_k23__64x96"],
)
def test_logits_and_classes_are_those_of_the_reference(case):
    model, _, size = case.partition("__")
    height, width = map(int, size.split("x"))
    network = loaded(model)
    with np.load(GOLDEN / f"{case}.npz") as file:
        stored = dict(file)

    @nnx.jit
    def run(network: Any, images: jax.Array) -> Any:
        logits = network.all_logits(images)
        maps = network.neck(network.features(images)) if hasattr(network, "neck") else ()
        return logits, maps

    logits, maps = run(network, jnp.asarray(golden_weights.images(1, height, width)))
    assert relative_error(logits[0], stored["logits"]) < 1e-5
    for level, found in enumerate(maps):
        assert relative_error(found[..., ::4], stored[f"fpn{level}"]) < 1e-5
    if "aux_logits" in stored:
        assert relative_error(logits[1], stored["aux_logits"]) < 1e-5
    resized = resize_bilinear(logits[0], (height, width))
    assert relative_error(resized[:, 3::8, 5::8], stored["resized_every_8th"]) < 1e-5
    assert np.array_equal(jnp.argmax(resized, -1), stored["classes_at_input"])
    original = tuple(stored["ori_shape"][:2].tolist())
    # On canvases larger than both sizes, of which nothing may show.
    found = predict_classes(
        logits[0],
        input_size=(height, width),
        image_size=jnp.asarray([[height, width]]),
        original_size=jnp.asarray([original]),
        canvas=(original[0] + 7, original[1] + 40),
    )
    kept = np.asarray(found)[:, : original[0], : original[1]]
    assert np.array_equal(kept.reshape(stored["classes_at_ori"].shape), stored["classes_at_ori"])


def values_per_channel(path: str) -> int:
    """Return how many values a BatchNorm sees of a channel, of two images of 64 x 64."""
    parts = [int(p) if p.isdecimal() else p for p in path.split("/")]
    side = {
        "backbone": lambda: 16 >> parts[2],
        "branches": lambda: 16 >> (parts[1] - parts[3]),
        "pools": lambda: (1, 2, 3, 6)[parts[1]],
        "bottleneck": lambda: 2,
        "laterals": lambda: 16 >> parts[1],
        "outputs": lambda: 16 >> parts[1],
        "fusion": lambda: 16,
        "auxiliary": lambda: 4,
    }[parts[0]]()
    return 2 * side**2


@pytest.mark.slow
@pytest.mark.parametrize("model", ["semfpn_lska_tiny_k23", "upernet_lska_tiny_k23"])
def test_loss_gradients_and_statistics_are_those_of_the_reference(model):
    network = loaded(model)
    functions, stats = ModelFunctions(network), batch_stats(network)
    with np.load(GOLDEN / f"{model}__64x64_train.npz") as file:
        stored = dict(file)
    images, labels = golden_weights.images(2, 64, 64), stored["labels"].astype(np.uint8)
    # All pixels count in the mean, labelled or not.
    weights = jnp.full((2,), 1 / labels.size, jnp.float32)

    @jax.jit
    def run(params: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs, updated = functions.train(
                params, stats, jnp.asarray(images), key=jax.random.key(0), method="all_logits"
            )
            losses = [
                factor * weighted_cross_entropy(logits, jnp.asarray(labels), weights)
                for factor, logits in zip((1.0, 0.4), outputs, strict=False)
            ]
            return jnp.sum(jnp.stack(losses)), (losses, updated)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (losses, updated)), gradients = jax.tree.map(np.asarray, run(parameters(network)))
    assert losses[0] == pytest.approx(float(stored["decode/loss_ce"]), rel=1e-5)
    if "aux/loss_ce" in stored:
        assert losses[1] == pytest.approx(float(stored["aux/loss_ce"]), rel=1e-5)
    names = {name: (path, layout) for path, (name, layout) in named(model, network.config).items()}
    for name, (norm, probe) in zip(stored["grad_names"], stored["grad_values"], strict=True):
        path, layout = names[str(name)]
        gradient = layout.torch_array(gradients[path]).astype(np.float64)
        if norm < 1e-6:  # a bias ahead of a BatchNorm, zero in exact arithmetic
            assert np.linalg.norm(gradient) < 1e-6
            continue
        # Behind a BatchNorm of two values a channel rounding is amplified: with images that differ
        # by 1e-7 the largest of these errors is 2.8e-4 to 9.1e-4, of all others at most 1e-5.
        is_amplified = model.startswith("upernet") and path.startswith(("backbone", "pools/0"))
        ours = gradient.ravel() @ golden_weights.normal(f"probe/{name}", gradient.shape).ravel()
        limit = 2e-3 if is_amplified else 1e-4
        errors = abs(np.linalg.norm(gradient) - norm), abs(ours - probe)
        assert max(errors) < limit * norm, name
    for name, expected in zip(stored["bn_names"], stored["bn_values"], strict=True):
        path, _ = names[str(name)]
        new, old = updated[path].astype(np.float64), np.asarray(stats[path], np.float64)
        if path.endswith("/var"):
            # PyTorch keeps the unbiased variance.
            count = values_per_channel(path)
            new = old * BATCH_NORM_MOMENTUM + (new - old * BATCH_NORM_MOMENTUM) * count / (
                count - 1
            )
        assert np.linalg.norm(new) == pytest.approx(float(expected), rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "record",
    [families.CONVNEXT, families.SWIN, families.PVT_V2, families.INCEPTION_NEXT],
    ids=lambda record: record.family.name,
)
@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_any_family_with_stages_is_a_backbone(record, head):
    family = family_with_head(record.family, head)
    section = {"name": head, "channels": 8}
    network = build_of(family.config(**{**record.narrow, "head": section}))
    images = jnp.ones((2, 64, 64, 3))
    logits = network(images)
    first = network.pyramid[0]
    assert logits.shape == (2, 64 // first.stride, 64 // first.stride, 5)
    assert jnp.isfinite(logits).all()
    assert all(path.startswith("backbone/") for path in parameters(network) if "stages" in path)


def build_of(config: Any) -> Any:
    from lska_jax.models.build import build

    return build(config, rngs=nnx.Rngs(0))


def test_a_backbone_without_stages_is_refused_with_its_strides():
    family = family_with_head(families.VIT.family, "semantic_fpn")
    with pytest.raises(ValueError, match="have the strides 4, 4, None. Choose a model with stages"):
        abstract_model(family.config(**{**families.VIT.narrow, "head": "semantic_fpn"}))


def test_the_backbones_epsilon_is_that_of_dense_code_and_a_field():
    assert config_for("semfpn_lska_tiny_k23").layer_norm_epsilon == 1e-5
    given = section_of("van_lska_tiny", head="upernet", layer_norm_epsilon=1e-6)
    assert config_of(given).layer_norm_epsilon == 1e-6
    assert config_of(section_of("van_lska_tiny")).layer_norm_epsilon == 1e-6


def test_heads_and_their_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="Unknown head 'upernett'. Did you mean upernet?"):
        section_of("van_lska_tiny", head="upernett")
    with pytest.raises(ValueError, match="upernet has no width; it has channels"):
        section_of("van_lska_tiny", head={"name": "upernet", "width": 3})
    with pytest.raises(ValueError, match="head.channels=0 must be at least 1"):
        config_of(section_of("van_lska_tiny", head={"name": "upernet", "channels": 0}))
