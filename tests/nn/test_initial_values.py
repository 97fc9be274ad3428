"""Initial values: those of ``nnx.initializers.normal``, from few compiled programs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.nn.initial_values import OneKey, as_rngs, normal, xavier_uniform

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize("shape", [(), (7,), (3, 3, 1, 32), (41, 100), (2**17 + 1,)], ids=str)
def test_values_are_those_of_the_initializer_of_nnx_bit_for_bit(shape):
    key = jax.random.fold_in(jax.random.key(3), 5)
    ours, theirs = (init(key, shape) for init in (normal(0.3), nnx.initializers.normal(0.3)))
    assert ours.dtype == theirs.dtype == jnp.float32
    assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_uniform_values_are_those_of_jax_bit_for_bit():
    key, shape = jax.random.key(4), (3, 3, 40, 100)
    bound = np.float32((6 / (9 * 140)) ** 0.5)
    theirs = bound * np.asarray(jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0))
    assert np.asarray(xavier_uniform(3, 3)(key, shape)).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("key", [jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)], ids=str)
def test_keys_of_other_kinds_draw_what_the_initializer_of_nnx_draws(key):
    ours, theirs = (init(key, (3, 5)) for init in (normal(0.3), nnx.initializers.normal(0.3)))
    np.testing.assert_array_equal(ours, theirs)


def test_values_under_a_trace_are_those_without_one():
    init = normal(0.3)
    traced = jax.jit(lambda key: init(key, (4, 5)))(jax.random.key(1))
    # The multiplication may be fused there, and rounds once less.
    np.testing.assert_allclose(traced, init(jax.random.key(1), (4, 5)), rtol=1e-6)


def test_other_shapes_compile_nothing_more():
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            compiled.append(event)

    init, keys = normal(0.1), [jax.random.key(size) for size in range(20)]
    init(keys[0], (5, 5))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for size in range(6, 20):
            init(keys[size], (size, size))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


def test_one_key_is_enough_to_build_a_linear_layer_abstractly():
    layer = nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=OneKey()))
    assert layer.kernel.get_value().shape == (2, 3)


@pytest.mark.parametrize(
    "given",
    [3, np.int64(3), np.array(3), jax.random.key(3), jax.random.PRNGKey(3)],
    ids=["int", "NumPy's int", "array", "key", "old key"],
)
def test_a_seed_or_a_key_is_as_good_as_streams_made_from_it(given):
    ours, streams = as_rngs(given), nnx.Rngs(3)
    np.testing.assert_array_equal(
        jax.random.key_data(ours.params()), jax.random.key_data(streams.params())
    )


def test_streams_stay_what_they_are():
    streams = nnx.Rngs(3)
    assert as_rngs(streams) is streams


@pytest.mark.parametrize("given", [None, 1.5, "0", True, jnp.zeros(3)], ids=repr)
def test_anything_else_is_refused_with_what_is_taken(given):
    with pytest.raises(TypeError, match=r"nnx\.Rngs, a seed such as 0, or a key such as"):
        inspect.unwrap(as_rngs)(given)
