"""A function that is computed again for its gradients equals one that is not, and keeps less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import one_device

from lska_jax.ops import gelu
from lska_jax.ops.recompute import recompute


def activate_and_mix(maps, kernel):
    return gelu(maps) @ kernel


def again(maps, kernel):
    return recompute(activate_and_mix, maps, kernel)


def chain(function):
    """Return the gradients of six layers, whose maps are eight times as wide inside."""

    def loss(images, kernels):
        for widen, narrow in kernels:
            images = images + function(images @ widen, narrow)
        return jnp.square(images).mean()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape) / 8, jnp.float32)

    return draw(4, 32, 32, 16), [(draw(16, 128), draw(128, 16)) for _ in range(6)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_the_same(drawn, dtype):
    images, kernels = jax.tree.map(lambda array: array.astype(dtype), drawn)
    with one_device():
        found = chain(again)(images, kernels)
    wanted = chain(activate_and_mix)(images, kernels)
    for actual, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # The same operations, some of them twice; what XLA fuses rounds differently.
        tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
        scale = np.abs(expected.astype(np.float32)).max()
        np.testing.assert_allclose(
            actual.astype(np.float32), expected.astype(np.float32), atol=tolerance * scale, rtol=0
        )


def test_the_wide_map_behind_the_activation_is_not_kept(drawn):
    with one_device():
        found, kept = (
            chain(function).lower(*drawn).compile().memory_analysis().temp_size_in_bytes
            for function in (again, activate_and_mix)
        )
    one_map = 4 * 4 * 32 * 32 * 128
    assert kept - found > 4 * one_map


def test_what_is_not_finite_shows_in_the_gradients():
    maps, kernel = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 2))

    with one_device():
        _, pull_back = jax.vjp(again, maps, kernel)
        of_maps, of_kernel = pull_back(jnp.ones((1, 2, 2, 2)).at[0, 0, 0, 0].set(jnp.inf))
    assert not np.isfinite(of_maps[0, 0, 0]).any()
    np.testing.assert_array_equal(np.isfinite(of_maps).all(-1)[0], [[False, True], [True, True]])
    assert not np.isfinite(of_kernel[:, 0]).any()


def test_over_several_devices_or_explicit_axes_it_is_the_function_alone():
    maps, kernel = jnp.ones((2, 2, 2, 3)), jnp.ones((3, 2))

    def is_alone():
        return "recompute" not in str(jax.make_jaxpr(lambda *a: again(*a))(maps, kernel))

    with one_device():
        assert not is_alone()
    with one_device(jax.sharding.AxisType.Explicit):
        assert is_alone()
    with jax.set_mesh(jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))):
        assert is_alone()


def test_forward_mode_is_refused_with_the_reason():
    maps, kernel = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 2))
    with one_device(), pytest.raises(TypeError, match="reverse mode"):
        jax.jvp(again, (maps, kernel), (maps, kernel))
