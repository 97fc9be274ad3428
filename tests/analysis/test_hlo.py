"""Reading optimised programs: bytes of operations, memories, prefetches, relayouts, loops."""

import pytest

from lska_jax.analysis import hlo

# What XLA prints for TPU, cut down: T(8,128) are tiles, S(1) is on-chip memory.
# ruff: noqa: E501
PROGRAM = """HloModule jit_f, is_scheduled=true

%fused_copy (p.0: bf16[4,8,64]) -> bf16[8,4,64] {
  %p.0 = bf16[4,8,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %transpose.1 = bf16[8,4,64]{2,1,0:T(8,128)(2,1)} transpose(%p.0), dimensions={1,0,2}
}

%fused_add (p.1: f32[8,128]) -> f32[8,128] {
  %p.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %add.1 = f32[8,128]{1,0:T(8,128)} add(%p.1, %p.1)
}

%body (t: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %v = f32[8,128]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %add.2 = f32[8,128]{1,0:T(8,128)} add(%v, %v), metadata={op_name="jit(f)/part_loop/add"}
  ROOT %r = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %add.2)
}

%condition (t: (s32[], f32[8,128])) -> pred[] {
  %t.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %less = pred[]{:T(512)} constant(true)
}

ENTRY %main.1 (x: f32[8,128], m: bf16[4,8,64]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %m = bf16[4,8,64]{2,1,0:T(8,128)(2,1)} parameter(1)
  %fusion.1 = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused_add, metadata={op_name="jit(f)/part_sum/add"}
  %copy-start.1 = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%fusion.1)
  %copy-done.1 = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((bf16[4,8,64]{2,1,0:T(8,128)(2,1)}), bf16[1,8,64]{2,1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%m), slice={[0:1], [0:8], [0:64]}
  %slice-done.1 = bf16[1,8,64]{2,1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start.1)
  %move = bf16[4,8,64]{2,0,1:T(8,128)(2,1)} copy(%m)
  %view = bf16[8,4,64]{2,1,0:T(8,128)(2,1)} bitcast(%move)
  %ahead = bf16[4,8,64]{2,0,1:T(8,128)(2,1)} copy(%m)
  %copy-start.2 = (bf16[4,8,64]{2,0,1:T(8,128)(2,1)S(1)}, bf16[4,8,64]{2,0,1:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%ahead)
  %copy-done.2 = bf16[4,8,64]{2,0,1:T(8,128)(2,1)S(1)} copy-done(%copy-start.2)
  %piece = bf16[4,8,64]{2,0,1:T(8,128)(2,1)} copy(%m)
  %slice-start.2 = ((bf16[4,8,64]{2,0,1:T(8,128)(2,1)}), bf16[4,4,64]{2,0,1:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%piece), slice={[0:4], [0:4], [0:64]}
  %slice-done.2 = bf16[4,4,64]{2,0,1:T(8,128)(2,1)S(1)} slice-done(%slice-start.2)
  %joined = bf16[4,8,64]{2,0,1:T(8,128)(2,1)S(1)} custom-call(%slice-done.2, %slice-done.2), custom_call_target="ConcatBitcast"
  %kernel = f32[8,128]{1,0:T(8,128)} custom-call(%copy-done.1, %view, %copy-done.2, %joined), custom_call_target="tpu_custom_call", backend_config={"name":"a(b"}
  %moved.2 = bf16[8,4,64]{2,1,0:T(8,128)(2,1)} fusion(%m), kind=kLoop, calls=%fused_copy
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %kernel)
  %while.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""
TILE = 8 * 128 * 4


@pytest.fixture(scope="module")
def executed():
    return {operation.name: operation for operation in hlo.operations(PROGRAM)}


def test_only_what_runs_and_moves_bytes_is_listed(executed):
    assert set(executed) == {
        "fusion.1", "copy-start.1", "slice-start.1", "move", "ahead", "copy-start.2", "piece",
        "slice-start.2", "kernel",
        "moved.2", "add.2",
    }  # fmt: skip


def test_bytes_are_operands_and_results(executed):
    assert executed["fusion.1"].bytes_accessed == 2 * TILE
    assert executed["fusion.1"].hbm_bytes == 2 * TILE


def test_arrays_are_padded_to_whole_tiles_in_the_order_they_lie(executed):
    # 64 channels fill half of 128 lanes; with 4 as second to last, half of 8 sublanes too.
    assert [b.size for b in executed["move"].operands] == [4 * 8 * 128 * 2]
    assert [b.size for b in executed["move"].results] == [8 * 8 * 128 * 2]


def test_a_prefetch_counts_once_and_its_target_is_on_chip(executed):
    assert executed["copy-start.1"].bytes_accessed == 2 * TILE
    assert executed["copy-start.1"].hbm_bytes == TILE


def test_a_slice_is_as_large_as_what_it_takes(executed):
    one = 8 * 128 * 2
    assert executed["slice-start.1"].bytes_accessed == 2 * one
    assert executed["slice-start.1"].hbm_bytes == one


def test_a_loop_counts_as_often_as_it_runs(executed):
    assert executed["add.2"].bytes_accessed == 5 * 3 * TILE


def test_relayouts_are_copies_into_another_order_and_not_prefetches(executed):
    moves = hlo.relayouts(executed.values(), PROGRAM)
    assert {move.name for move in moves} == {"move", "ahead", "piece", "moved.2"}


def test_a_relayout_is_found_in_front_of_a_kernel_through_views_and_prefetches(executed):
    moves = hlo.relayouts(executed.values(), PROGRAM)
    found = hlo.around_custom_calls(list(executed.values()), moves)
    assert [move.name for move in found] == ["move", "ahead", "piece"]


def test_bytes_are_summed_by_part_largest_first(executed):
    def part_of(operation):
        return operation.scope.split("/")[1] if operation.scope else "other"

    sums = hlo.bytes_by(executed.values(), part_of)
    assert list(sums)[-1] == "part_sum"
    assert sums["part_loop"] == (15 * TILE, 15 * TILE)
    assert sums["part_sum"] == (2 * TILE, 2 * TILE)
