"""The table behind "auto": what it says, and who is asked."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from lska_jax.ops import formulations, platform
from lska_jax.ops.depthwise import choose_for, depthwise_conv
from lska_jax.ops.formulations import (
    NAMES,
    NARROW_CPU,
    TABLE_PATH,
    WIDE_CPU,
    Formulations,
    Site,
    choose,
    parse,
    part_of,
    site_of,
)

TABLE = json.loads(TABLE_PATH.read_text())


@pytest.fixture
def table(monkeypatch):
    """A table of four rows, each of another kind."""
    rows = [
        (Site((1, 5), 1, (56, 56), 32), Formulations("shift", "shift", "xla")),
        (Site((1, 17), 3, (14, 14), 256), Formulations("toeplitz", "toeplitz", "shift")),
        (Site((7, 7), 3, (56, 56), 32), Formulations("xla", "xla", "xla")),
        (Site((3, 3), 1, (56, 56), 32), Formulations("xla", "shift", "xla")),
    ]
    monkeypatch.setattr(formulations, "_table", lambda: {part_of("cpu"): rows})


def test_every_platform_says_where_its_rows_come_from():
    assert set(TABLE) == {WIDE_CPU, NARROW_CPU, "gpu", "tpu"}
    assert all(part["source"] and part["rows"] for part in TABLE.values())
    for part, words in ((WIDE_CPU, "AVX-512"), (NARROW_CPU, "AVX2")):
        assert TABLE[part]["source"].startswith("Measured by python -m benchmarks.tune")
        assert words in TABLE[part]["source"]
    assert "Compiled only, never run" in TABLE["tpu"]["source"]
    assert TABLE["gpu"]["source"].startswith("Measured by python -m benchmarks.tune")


@pytest.mark.parametrize(("is_wide", "part"), [(True, WIDE_CPU), (False, NARROW_CPU)])
def test_the_processor_at_hand_decides_the_part_of_a_cpu(is_wide, part, monkeypatch):
    monkeypatch.setattr(formulations, "has_wide_vectors", lambda: is_wide)
    part_of.cache_clear()
    try:
        assert part_of("cpu") == part
        for row in TABLE[part]["rows"]:
            assert choose(site_of(row), platform="cpu") == tuple(row["formulations"])
    finally:
        part_of.cache_clear()


def test_the_parts_of_cpus_differ_where_they_were_measured_to_differ():
    site = Site((53, 1), 1, (56, 56), 32)
    assert choose(site, platform=NARROW_CPU) == parse("toeplitz")
    assert choose(site, platform=WIDE_CPU) == parse("shift")


def test_auto_on_a_gpu_asks_for_no_kernel_that_jax_will_remove():
    for row in TABLE["gpu"]["rows"]:
        assert "pallas" not in row["formulations"]


@pytest.mark.parametrize("platform_name", sorted(TABLE))
def test_every_row_is_chosen_at_its_own_site(platform_name):
    for row in TABLE[platform_name]["rows"]:
        assert set(row["formulations"]) <= set(NAMES)
        chosen = choose(site_of(row), platform=platform_name)
        assert chosen == tuple(row["formulations"])


@pytest.mark.parametrize(
    ("site", "row"),
    [
        (Site((1, 7), 1, (40, 50), 48), 0),
        (Site((1, 11), 3, (14, 14), 320), 1),
        (Site((5, 5), 2, (14, 14), 320), 2),
        (Site((3, 3), 2, (56, 56), 32), 2),
        (Site((3, 3), 1, (14, 14), 320), 3),
    ],
)
def test_the_nearest_row_of_the_same_kind_is_taken(table, site, row):
    assert choose(site, platform="cpu") == formulations._table()[part_of("cpu")][row][1]


def test_another_dtype_is_as_far_as_two_doublings(monkeypatch):
    wide = Site((1, 5), 1, (56, 56), 64, "float32")
    narrow = Site((1, 5), 1, (56, 56), 32, "bfloat16")
    rows = [(wide, parse("shift")), (narrow, parse("toeplitz"))]
    monkeypatch.setattr(formulations, "_table", lambda: {"gpu": rows, part_of("cpu"): rows[:1]})
    assert choose(wide, platform="gpu") == parse("shift")
    assert choose(wide._replace(dtype="bfloat16"), platform="gpu") == parse("toeplitz")
    much_wider = wide._replace(dtype="bfloat16", channels=512)
    assert choose(much_wider, platform="gpu") == parse("toeplitz")
    smaller = Site((1, 5), 1, (14, 14), 64, "bfloat16")
    rows.append((smaller._replace(dtype="float32"), parse("xla")))
    assert choose(smaller, platform="gpu") == parse("xla")  # two doublings, not three
    assert choose(wide._replace(dtype="bfloat16"), platform="cpu") == parse("shift")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_for((8, 56, 56, 32), (1, 5, 1, 32), 1, jnp.bfloat16) == parse("toeplitz")
    assert choose_for((8, 56, 56, 64), (1, 5, 1, 64), 1, "float32") == parse("shift")


def test_without_a_row_of_the_kind_the_reference_is_taken(table):
    assert choose(Site((5, 1), 1, (56, 56), 32), platform="cpu") == parse("xla")
    assert choose(Site((1, 5), 1, (56, 56), 32), platform="tpu") == parse("xla")


def test_the_mesh_in_context_says_what_the_program_is_for():
    assert platform.target_platform() == jax.default_backend() == "cpu"
    tpu = jax.sharding.AbstractMesh(
        (4,),
        ("data",),
        (jax.sharding.AxisType.Auto,),
        abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu"),
    )
    with jax.sharding.use_abstract_mesh(tpu):
        assert platform.target_platform() == "tpu"
        assert platform.takes_pallas("auto", batch=32, dtype=jnp.bfloat16)
        # Around kernels for float32 the compiler copies maps into another order.
        assert not platform.takes_pallas("auto", batch=32, dtype=jnp.float32)
        assert platform.takes_pallas("pallas", batch=32, dtype=jnp.float32)
        # As a config has it.
        assert platform.takes_pallas("auto", batch=32, dtype="bfloat16")
        # Twelve images do not divide over the mesh as whole blocks of eight a device, nor do 33.
        assert not platform.takes_pallas("auto", batch=12, dtype=jnp.bfloat16)
        assert not platform.takes_pallas("auto", batch=33, dtype=jnp.bfloat16)
        # What an export leaves open may turn out to be either.
        (symbolic,) = export.symbolic_shape("b")
        assert not platform.takes_pallas("auto", batch=symbolic, dtype=jnp.bfloat16)
        assert choose_for((33, 28, 28, 64), (1, 5, 1, 64), 1, jnp.bfloat16) == parse("xla")


@pytest.mark.parametrize(
    ("kinds", "images", "takes"),
    [
        ("AA", 16, True),  # eight images on each of two devices: the axis model has one
        ("AA", 8, False),
        ("MA", 8, True),  # an enclosing shard_map has split the batch
        ("MM", 8, True),
        ("EA", 16, False),
    ],
)
def test_axes_that_are_split_already_do_not_count_and_explicit_ones_refuse(kinds, images, takes):
    types = {
        "A": jax.sharding.AxisType.Auto,
        "M": jax.sharding.AxisType.Manual,
        "E": jax.sharding.AxisType.Explicit,
    }
    tpu = jax.sharding.AbstractMesh(
        (2, 1),
        ("data", "model"),
        tuple(types[kind] for kind in kinds),
        abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu"),
    )
    with jax.sharding.use_abstract_mesh(tpu):
        assert platform.takes_pallas("auto", batch=images, dtype=jnp.bfloat16) == takes
        assert platform.images_of_a_device(16) == (16 if kinds[0] == "M" else 8)


@pytest.mark.parametrize(
    ("backend", "devices", "batch", "takes"),
    [("tpu", 1, 8, True), ("tpu", 1, 1, False), ("tpu", 4, 32, False), ("gpu", 1, 8, False)],
)
def test_auto_takes_a_kernel_only_where_it_can_be_placed(
    monkeypatch, backend, devices, batch, takes
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    assert platform.takes_pallas("auto", batch=batch, dtype=jnp.bfloat16) == takes
    # The fused ones are the TPU's; on GPU each convolution has a kernel of its own.
    assert platform.takes_pallas("pallas", batch=batch, dtype=jnp.bfloat16) == (backend != "gpu")
    assert not platform.takes_pallas("xla", batch=batch, dtype=jnp.bfloat16)


def test_auto_sums_no_more_slices_than_pay(monkeypatch):
    rows = [(Site((11, 11), 1, (56, 56), 32), parse("shift"))]
    monkeypatch.setattr(formulations, "_table", lambda: {part_of("cpu"): rows})
    assert choose_for((8, 56, 56, 32), (11, 11, 1, 32), 1, jnp.float32) == parse("shift")
    assert choose_for((8, 56, 56, 32), (15, 15, 1, 32), 1, jnp.float32) == parse("toeplitz")
    # Of the larger kernel few taps reach into the smaller map.
    assert choose_for((8, 5, 5, 32), (15, 15, 1, 32), 1, jnp.float32) == parse("shift")


def test_an_export_may_leave_the_size_of_the_map_open():
    kernel = jnp.ones((1, 5, 1, 3))
    shape = export.symbolic_shape("b, h, w, 3")
    run = export.export(jax.jit(lambda images: depthwise_conv(images, kernel)))
    exported = run(jax.ShapeDtypeStruct(shape, jnp.float32))
    images = jax.random.normal(jax.random.key(0), (2, 6, 9, 3))
    expected = depthwise_conv(images, kernel, implementation="xla")
    # The same convolution of five taps: float32 roundings at most.
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-6, atol=1e-6)


def test_a_kernel_that_cannot_be_placed_or_held_gives_way_to_the_reference(monkeypatch):
    kernel, size = (1, 5, 1, 64), (8, 28, 28, 64)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert "pallas" in choose_for(size, kernel, 1, jnp.bfloat16)
    assert choose_for((8, 2000, 2000, 64), kernel, 1, jnp.bfloat16) == parse("xla")
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert choose_for(size, kernel, 1, jnp.bfloat16) == parse("xla")
    rows = [(Site((1, 5), 1, (28, 28), 64), parse(("shift", "pallas", "toeplitz")))]
    monkeypatch.setattr(formulations, "_table", lambda: {"tpu": rows})
    assert choose_for(size, kernel, 1, jnp.bfloat16) == ("shift", "xla", "toeplitz")
