"""Meshes, shardings, and that a sharded run is the run of one device."""

import dataclasses
import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from lska_jax.analysis.collectives import collectives
from lska_jax.running import parallel
from lska_jax.training import run as building
from lska_jax.training.state import TrainState, host_state, place_state
from lska_jax.training.step import train_step

DEVICES = 8
STEPS = 4
BATCH = 16
# Devices, and how many of them share one copy of the parameters.
LAYOUTS = [
    pytest.param((8, 1), id="data parallel over 8", marks=pytest.mark.slow),
    pytest.param((8, 4), id="data 2 x fsdp 4"),
    pytest.param((8, 8), id="fsdp over 8", marks=pytest.mark.slow),
    pytest.param((4, 2), id="data 2 x fsdp 2, on some devices", marks=pytest.mark.slow),
]

# float32 sums over the batch and over channels run in another order on each layout.
LOSS_RTOL = 2e-5
PARAMETER_ATOL = 1e-6


def small_van(*, fsdp: int = 1) -> ConfigDict:
    """Return a one-stage VAN-LSKA with dropout, wide enough for FSDP to split its matrices."""
    path = Path(__file__).parents[2] / "configs" / "digits.py"
    config = runpy.run_path(str(path))["get_config"]("11")
    config.model.update({"dims": (64,), "depths": (1,), "ffn_ratios": (4,), "drop_rate": 0.1})
    config.training.update({"batch_size": BATCH, "eval_batch_size": BATCH, "fsdp": fsdp})
    # A bias before a BatchNorm has no gradient but rounding; Adam would make full steps of it.
    config.optimizer.epsilon = 1e-2
    return config


def host_batch(step: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(step)
    return {
        "image": generator.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8),
        "label": generator.integers(0, 10, BATCH, dtype=np.int32),
        "mask": np.arange(BATCH) != step,
    }


@dataclasses.dataclass
class Trained:
    """What a few steps left behind."""

    losses: list[float]
    state: TrainState
    first_state: TrainState
    step: Any


def take_steps(step: Callable, state: TrainState, make_batch: Callable) -> Trained:
    first, losses = state, []
    for number in range(STEPS):
        state, metrics = step(state, make_batch(number))
        losses.append(float(metrics["loss"]))
    return Trained(losses, state, first, step)


@pytest.fixture(scope="module")
def fresh() -> TrainState:
    config = small_van()
    run = building.build_run(config, num_train_examples=10 * BATCH)
    state = host_state(building.build_model(config), run.optimizer, use_ema=True)
    return jax.device_get(state)


@pytest.fixture(scope="module")
def on_one_device(fresh) -> Trained:
    run = building.build_run(small_van(), num_train_examples=10 * BATCH)
    step = functools.partial(
        train_step,
        task=run.task,
        functions=run.functions,
        optimizer=run.optimizer,
        schedule=run.schedule,
        spec=run.spec,
    )
    device = jax.devices()[0]
    state = jax.device_put(fresh, device)
    return take_steps(jax.jit(step), state, lambda n: jax.device_put(host_batch(n), device))


@pytest.fixture(scope="module")
def on_mesh(fresh) -> Callable[[int, int], Trained]:
    @functools.cache
    def train(devices: int, fsdp: int) -> Trained:
        mesh = parallel.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
        run = building.build_run(small_van(fsdp=fsdp), num_train_examples=10 * BATCH, mesh=mesh)
        sharding = parallel.batch_sharding(run.mesh)
        return take_steps(
            building.train_program(run).compile(),
            place_state(fresh, run.mesh),
            lambda n: parallel.to_global(host_batch(n), sharding, global_batch_size=BATCH),
        )

    return train


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_mesh_trains_with_the_losses_of_one_device(on_one_device, on_mesh, layout):
    sharded = on_mesh(*layout)
    assert len(jax.tree.leaves(sharded.state.params)[0].sharding.device_set) == layout[0]
    np.testing.assert_allclose(sharded.losses, on_one_device.losses, rtol=LOSS_RTOL)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_mesh_ends_with_the_parameters_and_statistics_of_one_device(
    on_one_device, on_mesh, layout
):
    sharded, single = on_mesh(*layout).state, on_one_device.state
    for group in ("params", "batch_stats", "ema"):
        ours, theirs = (jax.device_get(getattr(state, group)) for state in (sharded, single))
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=PARAMETER_ATOL), ours, theirs
        )


def bytes_on_one_device(state: TrainState) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_parameters_are_replicated_by_default(on_mesh):
    state = on_mesh(DEVICES, 1).state
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert bytes_on_one_device(state) == sum(leaf.nbytes for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_fsdp_keeps_a_part_of_every_large_array_on_each_device(on_mesh, layout):
    """Parameters, both moments and the average: a part, and still after steps."""
    fsdp = layout[1]
    state = on_mesh(*layout).state
    large = [leaf for leaf in jax.tree.leaves(state) if leaf.size >= 2**14]
    # Two matrices of the FFN, each in params, mu, nu and the average.
    assert len(large) == 2 * 4
    for leaf in large:
        assert leaf.addressable_shards[0].data.nbytes == leaf.nbytes // fsdp
    rest = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.size < 2**14)
    split = sum(leaf.nbytes for leaf in large) // fsdp
    assert bytes_on_one_device(state) == rest + split


@pytest.mark.slow
def test_fsdp_lowers_what_the_compiled_step_holds_on_a_device(on_mesh):
    replicated, split = (
        on_mesh(DEVICES, fsdp).step.memory_analysis().argument_size_in_bytes for fsdp in (1, 4)
    )
    large = 2 * 4 * 64 * 256 * np.dtype(np.float32).itemsize
    assert replicated - split == large - large // 4


@pytest.mark.slow
def test_microbatches_are_split_without_moving_an_image_between_devices():
    """Nothing but sums travels: of gradients, statistics and losses."""
    config = small_van()
    config.training.gradient_accumulation = 2
    run = building.build_run(config, num_train_examples=10 * BATCH)
    found = collectives(building.train_program(run).compile().as_text())
    assert {one.kind for one in found} == {"all-reduce"}


def test_the_mesh_of_other_devices_is_over_those_alone():
    devices = jax.devices()[2:6]
    mesh = parallel.make_mesh(fsdp=2, devices=devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2}
    assert set(mesh.devices.flat) == set(devices)


def test_the_state_is_donated(on_mesh):
    trained = on_mesh(DEVICES, 4)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(trained.first_state))
    assert trained.step.memory_analysis().alias_size_in_bytes >= bytes_on_one_device(trained.state)


def test_the_compiled_step_refuses_another_batch_size_instead_of_compiling_again(on_mesh):
    trained = on_mesh(DEVICES, 4)
    sharding = parallel.batch_sharding(parallel.make_mesh(fsdp=4))
    larger = {name: np.repeat(array, 2, axis=0) for name, array in host_batch(0).items()}
    batch = parallel.to_global(larger, sharding, global_batch_size=2 * BATCH)
    with pytest.raises(TypeError, match="compiled|lowered"):
        trained.step(trained.state, batch)


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_a_mesh_covers_all_devices_in_two_axes(fsdp):
    mesh = parallel.make_mesh(fsdp=fsdp)
    assert dict(mesh.shape) == {"data": DEVICES // fsdp, "fsdp": fsdp}
    assert mesh.size == DEVICES


@pytest.mark.parametrize("fsdp", [0, 3, 16, -1])
def test_an_fsdp_axis_that_does_not_divide_the_devices_is_refused(fsdp):
    with pytest.raises(ValueError, match=rf"fsdp={fsdp} does not divide the 8 .*1, 2, 4, 8"):
        parallel.make_mesh(fsdp=fsdp)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((512, 64), PartitionSpec("fsdp")),
        ((64, 512), PartitionSpec(None, "fsdp")),
        # The largest axis that the eight devices divide, not the largest.
        ((1001, 64), PartitionSpec(None, "fsdp")),
        ((1001, 101), PartitionSpec()),
        ((2**13,), PartitionSpec()),
        ((), PartitionSpec()),
    ],
    ids=str,
)
def test_arrays_are_split_along_their_largest_divisible_axis(shape, expected):
    sharding = parallel.state_sharding(
        parallel.make_mesh(fsdp=8), jax.ShapeDtypeStruct(shape, np.float32)
    )
    assert sharding.spec == expected


def test_one_process_holds_every_row_and_each_device_its_share_in_order():
    sharding = parallel.batch_sharding(parallel.make_mesh(fsdp=2))
    np.testing.assert_array_equal(parallel.local_rows(sharding, BATCH), np.arange(BATCH))
    labels = np.arange(BATCH, dtype=np.int32)
    placed = parallel.to_global({"label": labels}, sharding, global_batch_size=BATCH)["label"]
    shares = [np.asarray(shard.data) for shard in placed.addressable_shards]
    np.testing.assert_array_equal(np.concatenate(shares), labels)
    assert {len(share) for share in shares} == {BATCH // DEVICES}


def test_a_placed_array_has_its_values_and_its_sharding():
    sharding = parallel.state_sharding(
        parallel.make_mesh(fsdp=8), jax.ShapeDtypeStruct((512, 64), np.float32)
    )
    array = np.random.default_rng(0).normal(size=(512, 64)).astype(np.float32)
    placed = parallel.place(array, sharding)
    assert placed.sharding == sharding
    np.testing.assert_array_equal(placed, array)


@pytest.mark.parametrize(
    ("address", "count", "number", "message"),
    [
        ("localhost:1234", None, None, "--coordinator_address, --num_processes and --process_id"),
        (None, 2, 0, "--coordinator_address, --num_processes and --process_id"),
        ("localhost:1234", 2, 2, r"--process_id must be in \[0, 2\), got 2"),
        ("localhost:1234", 2, -1, r"--process_id must be in \[0, 2\), got -1"),
        ("localhost:1234", 0, 0, "must be"),
        ("localhost", 2, 0, "--coordinator_address must be host:port, got 'localhost'"),
    ],
)
def test_an_incomplete_description_of_the_processes_is_refused(address, count, number, message):
    with pytest.raises(ValueError, match=message):
        parallel.start_processes(
            coordinator_address=address, num_processes=count, process_id=number
        )


@pytest.fixture
def no_cluster(monkeypatch) -> None:
    """Let JAX find what it finds on a machine without one; it would not look after computing."""

    def initialize(**_: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)


@pytest.mark.parametrize("distributed", ["auto", "off"])
def test_a_single_process_needs_no_description(distributed, no_cluster):
    parallel.start_processes(distributed=distributed)
    assert jax.process_count() == 1


def test_asking_for_several_processes_where_nothing_describes_them_is_refused(no_cluster):
    with pytest.raises(ValueError, match="--distributed=on, but no cluster was found"):
        parallel.start_processes(distributed="on")


def test_describing_processes_and_turning_them_off_is_refused():
    with pytest.raises(ValueError, match="--distributed=off, but processes are described"):
        parallel.start_processes(num_processes=2, distributed="off")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'maybe' is unknown; allowed: auto, on, off"):
        parallel.start_processes(distributed="maybe")


@pytest.mark.parametrize("status", [0, 75])
def test_an_exit_that_all_agreed_on_stays_an_exit(status):
    with pytest.raises(SystemExit) as leaving, parallel.leaving_together():
        raise SystemExit(status)
    assert leaving.value.code == status
