"""What a step needs, read from compiled programs, and the search for the largest batch."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lska_jax.analysis.collectives import Collective, collectives, sums_by_kind
from lska_jax.analysis.step_report import largest_that_fits, report_step
from lska_jax.analysis.tpu_compile import tpu_devices
from lska_jax.running import parallel
from lska_jax.training.program import Program

GIB = 2**30


def over_eight(function, shape: tuple[int, ...], out: PartitionSpec) -> Program:
    """Return a function of one array that is split over eight devices."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    jitted = jax.jit(function, out_shardings=NamedSharding(mesh, out))
    return Program(jitted, (jax.ShapeDtypeStruct(shape, jnp.float32, sharding=split),), mesh)


def test_a_sum_over_devices_is_one_all_reduce_of_what_is_left_on_each():
    report = report_step(over_eight(lambda x: x.sum(0), (64, 100), PartitionSpec()))
    assert report.collectives == {"all-reduce": {"count": 1, "bytes": 100 * 4}}
    assert report.argument_bytes == 64 * 100 * 4 // 8
    assert report.fits


def test_replicating_an_array_is_one_all_gather_of_each_device_s_part():
    report = report_step(over_eight(lambda x: 2 * x, (64, 100), PartitionSpec()))
    assert report.collectives == {"all-gather": {"count": 1, "bytes": 64 * 100 * 4 // 8}}


def test_collectives_inside_a_loop_count_each_time():
    def repeat(x):
        return jax.lax.fori_loop(0, 3, lambda i, total: total + (x * total).sum(0), jnp.ones(100))

    found = collectives(over_eight(repeat, (64, 100), PartitionSpec()).compile().as_text())
    assert sums_by_kind(found) == {"all-reduce": {"count": 3, "bytes": 3 * 100 * 4}}


def test_an_asynchronous_collective_counts_once_where_it_starts():
    text = """\
HloModule m

%wrapped (p: f32[4,8]) -> f32[32,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %gather = f32[32,8]{1,0} all-gather(%p), dimensions={0}
}

ENTRY %main (a: f32[4,8]) -> f32[32,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %start = ((f32[4,8]{1,0}), f32[32,8]{1,0}, u32[]) async-start(%a), calls=%wrapped
  ROOT %done = f32[32,8]{1,0} async-done(%start), calls=%wrapped
}
"""
    assert collectives(text) == [Collective("all-gather", 4 * 8 * 4, 1, "")]


@pytest.mark.parametrize("true_largest", [0, 8, 64, 504, 1000])
@pytest.mark.parametrize("start", [8, 64, 512, 4096])
def test_the_largest_batch_is_found_from_any_start_in_few_compilations(true_largest, start):
    tried = []

    def bytes_of(batch: int) -> int | None:
        tried.append(batch)
        return GIB + batch * 2**24 if batch <= true_largest else None

    capacity = GIB + (true_largest + 4) * 2**24
    assert largest_that_fits(bytes_of, start=start, capacity=capacity, unit=8) == true_largest
    assert len(set(tried)) == len(tried) <= 14


def test_the_search_finds_where_memory_stops_growing_in_a_line():
    # Near the capacity the compiler recomputes, so more fits than a line foretells.
    def bytes_of(batch: int) -> int | None:
        return min(batch * 2**24, 15 * GIB) if batch <= 1200 else None

    assert largest_that_fits(bytes_of, start=64, capacity=16 * GIB, unit=8) == 1200


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_program_that_does_not_fit_is_a_report_with_the_compiler_s_words():
    mesh = parallel.make_mesh(devices=tpu_devices("v5e:1x1"))
    # 37 GiB for each of the sine and the cosine.
    shape = jax.ShapeDtypeStruct((200_000, 50_000), jnp.float32, sharding=parallel.replicated(mesh))
    report = report_step(Program(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T), (shape,), mesh))
    assert not report.fits
    assert re.search(r"Ran out of memory on HBM.*exceeds available HBM \(15.75G\)", report.refusal)
    assert report.total_bytes == 0


def test_what_the_compiler_says_of_memory_is_kept_where_no_tpu_compiler_is():
    class TooLarge(Program):
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory.\n\nMore")

    report = report_step(TooLarge(None, (), parallel.make_mesh()))
    assert not report.fits
    assert report.refusal == "Ran out of memory."


def test_other_errors_of_the_compiler_are_raised():
    class Broken(Program):
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        report_step(Broken(None, (), parallel.make_mesh()))
