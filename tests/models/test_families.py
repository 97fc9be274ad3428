"""What holds for the networks of every family alike: goldens, costs, modes, devices, dtypes."""

import functools
import itertools
import math

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import RECORDS, UNIREPLKNET
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lska_jax.analysis.complexity import network_cost
from lska_jax.models import network
from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.checks import check_images
from lska_jax.models.table import section_of
from lska_jax.nn.functional import ModelFunctions
from lska_jax.nn.layers import DropPath


def slow(*values, when: bool = True):
    return pytest.param(*values, marks=pytest.mark.slow if when else ())


each_family = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.family.name)
each_model = pytest.mark.parametrize(
    ("record", "name"),
    [pytest.param(record, name, id=name) for record in RECORDS for name in record.costs],
)
# Of those with key lists, more is known at every change: all names and shapes, in
# test_family_names.py. Others take up to a second each.
each_model_to_count = pytest.mark.parametrize(
    ("record", "name"),
    [
        pytest.param(
            *(record, name),
            id=name,
            marks=pytest.mark.slow if name in record.key_lists or parameters > 6e6 else (),
        )
        for record in RECORDS
        for name, (parameters, _) in record.costs.items()
    ],
)
each_training = pytest.mark.parametrize(
    "record",
    [slow(record, when=record.is_trained_slowly) for record in RECORDS],
    ids=lambda record: record.family.name,
)
# The small network of every family, and those of its other kinds.
each_network = pytest.mark.parametrize(
    ("record", "fields"),
    [
        pytest.param(record, fields, id="-".join([record.family.name, *map(str, fields.values())]))
        for record in RECORDS
        for fields in ({}, *record.variants)
    ],
)


@each_family
def test_what_are_no_images_is_named_as_what_it_is(record):
    config, side = record.config(), record.side
    for images, error, said in (
        (np.zeros((2, 3, side, side), np.float32), ValueError, "look channels-first"),
        (np.zeros((side, side, 3), np.float32), ValueError, "look like one image"),
        (np.zeros((1, side, side, 3), np.uint8), TypeError, "images are uint8; .*normalised"),
        (np.zeros((1, side, side, 3), np.complex64), TypeError, "images are complex64"),
        ([[[0.0, 0.0, 0.0]]], TypeError, "must be an array, got list"),
    ):
        with pytest.raises(error, match=said):
            check_images(images, config)


@each_network
@pytest.mark.slow
def test_no_images_have_no_logits(record, fields):
    graph, state = nnx.split(abstract_model(record.config(**fields)))
    images = jax.ShapeDtypeStruct((0, record.side, record.side, 3), jnp.float32)
    logits = jax.eval_shape(lambda state, images: nnx.merge(graph, state)(images), state, images)
    assert logits.shape == (0, 5)


@pytest.mark.parametrize(
    "case",
    [
        *itertools.chain.from_iterable(record.cases for record in RECORDS),
        *(slow(case) for record in RECORDS for case in record.more_cases),
    ],
)
def test_logits_and_maps_equal_the_reference(case):
    errors = golden_baselines.output_errors(case)
    stored = {name for name in golden_baselines.golden(case) if name != "tokens"}
    assert errors.keys() == stored
    # Float32 rounding through 8 to 36 blocks; 2e-6 was the worst seen.
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


@each_training
def test_the_training_loss_equals_the_reference(record):
    expected = golden_baselines.golden(record.trained)["train_loss"].item()
    assert golden_baselines.trained(record.trained)[0] == pytest.approx(expected, rel=1e-5)


@each_training
def test_every_gradient_equals_the_reference_in_norm_and_along_a_probe(record):
    stored = golden_baselines.golden(record.trained)
    errors = golden_baselines.gradient_errors(record.trained)
    untrained = {name for name in errors if stored[f"grad/{name}"][0] == 0}
    # Zero in exact arithmetic: their errors are norms of rounding noise.
    assert len(untrained) == record.untrained
    # Float32 through a forward and a backward pass of 8 to 18 blocks.
    bounds = {name: 1e-6 if name in untrained else 1e-4 for name in errors}
    assert {name: error for name, error in errors.items() if not error < bounds[name]} == {}


@pytest.mark.parametrize(
    "record",
    [slow(r, when=r.is_trained_slowly) for r in RECORDS if r.untrained],
    ids=lambda record: record.family.name,
)
def test_running_statistics_after_one_step_equal_the_reference(record):
    errors = golden_baselines.statistics_errors(record.trained)
    # Float32 rounding.
    assert errors and {name: error for name, error in errors.items() if not error < 1e-5} == {}


@each_family
def test_every_model_of_the_table_is_costed(record):
    assert list(record.costs) == list(record.family.models)


@each_model_to_count
def test_parameters_are_those_of_the_reference(record, name):
    shapes = array_shapes(config_of(section_of(name)))
    trained = (shape for path, shape in shapes.items() if not path.endswith(("/mean", "/var")))
    assert sum(map(math.prod, trained)) == record.costs[name][0]


@pytest.mark.slow
@each_model
def test_a_model_costs_what_the_reference_does(record, name):
    cost = network_cost(config_of(section_of(name)))
    assert (cost.parameters, round(cost.macs / 1e9, 3)) == record.costs[name]


@each_family
def test_drop_path_rates_grow_linearly_over_all_blocks(record):
    if "depth" in record.narrow:
        depths = {"depth": 5}
    else:
        depths = {"depths": (2, 3) if len(record.narrow["depths"]) == 2 else (5,)}
    model = abstract_model(record.config(drop_path_rate=0.2, **depths))
    blocks = getattr(model, "blocks", None) or [b for stage in model.stages for b in stage.blocks]
    rates = [block.drop_path.rate for block in blocks]
    assert isinstance(blocks[0].drop_path, DropPath)
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2], atol=1e-12)


def step(config):
    """Return a function to loss, logits, statistics and gradients in training, and its arrays."""
    functions = ModelFunctions(abstract_model(config))
    arrays = jax.tree.map(jnp.asarray, golden_baselines.arrays_of_config(config))
    stats = {path: a for path, a in arrays.items() if path.endswith(("/mean", "/var"))}
    params = {path: array for path, array in arrays.items() if path not in stats}

    def loss(params, images):
        logits, updated = functions.train(params, stats, images, key=jax.random.key(5))
        return jnp.sum(jnp.square(logits)), (logits, updated)

    return jax.value_and_grad(loss, has_aux=True), params


def images(record) -> jax.Array:
    drawn = np.random.default_rng(0).standard_normal((4, record.side, record.side, 3))
    return jnp.asarray(drawn, jnp.float32)


@functools.cache
def result(record, *fields):
    """Return what a step of a small network gives; ``fields`` are pairs."""
    run, params = step(record.config(**dict(fields)))
    return jax.jit(run)(params, images(record))


def assert_near(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # Float32 sums in another order; some gradients are rounding noise alone, below 1e-5.
        scale = np.abs(b).max() + 0.1
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)


@pytest.mark.slow
@each_network
def test_gradients_with_drop_path_and_dropout_are_finite_and_reach_every_array(record, fields):
    (loss, _), gradients = result(record, *{**fields, **record.rates}.items())
    assert np.isfinite(loss) and loss != result(record, *fields.items())[0][0]
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())
    assert [path for path, gradient in gradients.items() if not np.any(gradient)] == []


@pytest.mark.slow
@each_network
def test_rematerialisation_changes_neither_outputs_nor_gradients(record, fields, monkeypatch):
    # On CPU blocks are not computed again.
    monkeypatch.setattr(network, "target_platform", lambda: "tpu")
    fields = {**fields, **record.rates}
    assert_near(result(record, *fields.items(), ("remat", True)), result(record, *fields.items()))


@pytest.mark.slow
@each_network
def test_a_batch_on_two_devices_has_the_outputs_and_gradients_of_one(record, fields):
    run, params = step(record.config(**fields))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(images(record), NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        found = jax.jit(run)(whole, split)
    assert_near(found, result(record, *fields.items()))


@pytest.mark.slow
@each_network
def test_bfloat16_keeps_parameters_gradients_and_logits_in_float32(record, fields):
    config = record.config(dtype="bfloat16", **fields)
    run, params = step(config)
    (loss, (logits, stats)), gradients = jax.eval_shape(run, params, images(record))
    leaves = [loss, logits, *stats.values(), *params.values(), *gradients.values()]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.slow
@each_network
def test_bfloat16_maps_are_bfloat16_and_near_the_float32_ones(record, fields):
    if record is UNIREPLKNET:
        pytest.skip("four channels of two norms of responses; test_unireplknet.py holds logits")
    exact, found = (
        golden_baselines.logits_and_maps(
            golden_baselines.network_of(record.config(dtype=dtype, **fields)), images(record)
        )
        for dtype in ("float32", "bfloat16")
    )
    assert found[0].dtype == jnp.float32
    for ours, theirs in zip(found[1], exact[1], strict=True):
        assert ours.dtype == jnp.bfloat16
        # Some roundings of 2**-9, a few after each other.
        assert golden_baselines.relative_error(ours.astype(jnp.float32), np.asarray(theirs)) < 0.03
