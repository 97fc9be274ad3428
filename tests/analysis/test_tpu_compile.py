"""Compiling for a TPU that is not there, where libtpu is installed."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lska_jax.analysis import hlo
from lska_jax.analysis.tpu_compile import compile_for_tpu, compiled_cost, tpu_devices
from lska_jax.ops.pallas import depthwise_chain

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_error_says_what_to_install():
    with pytest.raises(ImportError, match=r"pip install 'jax\[tpu\]'"):
        tpu_devices()


@needs_libtpu
def test_a_map_is_read_once_and_written_once():
    images = jax.ShapeDtypeStruct((8, 16, 16, 128), jnp.float32)
    compiled = compile_for_tpu(lambda x: 2 * x, images)
    map_bytes = 8 * 16 * 16 * 128 * 4
    cost = compiled_cost(compiled)
    assert cost.bytes_accessed == 2 * map_bytes
    assert (cost.argument_bytes, cost.output_bytes) == (map_bytes, map_bytes)
    assert sum(op.bytes_accessed for op in hlo.operations(compiled.as_text())) == 2 * map_bytes


@needs_libtpu
def test_a_kernel_on_each_chip_reads_its_own_images_without_relayouts():
    devices = np.array(tpu_devices("v5e:2x2")).reshape(4, 1)
    mesh = Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    images = jax.ShapeDtypeStruct((32, 7, 7, 128), jnp.bfloat16, sharding=split)
    kernel = jax.ShapeDtypeStruct((3, 3, 1, 128), jnp.float32, sharding=whole)

    def run(images, kernel):
        return depthwise_chain(images, [kernel], None, dilations=[1])

    with jax.set_mesh(mesh):
        compiled = compile_for_tpu(run, images, kernel)
    text = compiled.as_text()
    executed = hlo.operations(text)
    (call,) = (op for op in executed if op.target == "tpu_custom_call")
    assert call.results[0].text.startswith("bf16[7,7,8,128]")
    assert not hlo.around_custom_calls(executed, hlo.relayouts(executed, text))
    assert "all-gather" not in text
