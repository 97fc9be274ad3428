"""A branch computed image by image equals the branch of all at once, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import one_device

from lska_jax.ops import images_in_turn
from lska_jax.ops.images_in_turn import in_turn

ONE_IMAGE = 4 * 8 * 8 * 64  # bytes of its map between
SIZE = (4, 8, 8, 4)


def branch(images, kernels):
    expanded = jnp.tanh(images @ kernels[0])
    return jnp.tanh(expanded @ kernels[1])


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    draw = [rng.standard_normal(shape) for shape in (SIZE, (4, 64), (64, 4), SIZE)]
    images, *kernels, cotangent = (jnp.asarray(array, jnp.float32) for array in draw)
    return images, kernels, cotangent


@pytest.fixture
def at_a_time(monkeypatch):
    """Return what settles how many of the images are computed at a time."""

    def settle(images: int) -> None:
        monkeypatch.setattr(images_in_turn, "BYTES_A_CORE", images * ONE_IMAGE)
        monkeypatch.setattr(images_in_turn, "usable_cores", lambda: 1)

    return settle


def apply(images, kernels, *, remat=False):
    return in_turn(branch, images, kernels, bytes_an_image=ONE_IMAGE, remat=remat)


def traced(images, kernels):
    # A function of its own, since JAX keeps the trace of a function for its shapes.
    return str(jax.make_jaxpr(lambda *arrays: apply(*arrays))(images, kernels))


def is_in_turn(images, kernels):
    return "scan" in traced(images, kernels)


def value_and_gradients(function, images, kernels, cotangent):
    out, pull_back = jax.vjp(function, images, kernels)
    return jax.tree.leaves((out, pull_back(cotangent)))


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("remat", [False, True])
def test_value_and_gradients_are_those_of_all_images_at_once(
    drawn, at_a_time, most, expected, remat
):
    at_a_time(most)
    function = functools.partial(apply, remat=remat)
    with one_device():
        assert f"f32[{4 // expected},{expected},8,8,4]" in traced(*drawn[:2])
        found = jax.jit(lambda *arrays: value_and_gradients(function, *arrays))(*drawn)
    whole = value_and_gradients(branch, *drawn)
    for actual, wanted in zip(found, whole, strict=True):
        # Sums of up to 256 products in another order, float32 roundings of 6e-8 each.
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_images_that_fit_are_computed_at_once(drawn, at_a_time):
    with one_device():
        at_a_time(4)
        assert not is_in_turn(*drawn[:2])
        at_a_time(1)
        assert not is_in_turn(drawn[0][:1], drawn[1])
        assert not is_in_turn(drawn[0][:0], drawn[1])
        assert is_in_turn(*drawn[:2])


def test_a_batch_on_several_devices_stays_whole(drawn, at_a_time):
    at_a_time(1)
    assert jax.device_count() > 1
    assert not is_in_turn(*drawn[:2])
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not is_in_turn(*drawn[:2])


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_only_programs_for_cpu_have_a_loop(drawn, at_a_time, platform, monkeypatch):
    at_a_time(1)
    monkeypatch.setattr(images_in_turn, "target_platform", lambda: platform)
    with one_device():
        assert not is_in_turn(*drawn[:2])


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_are_computed_in_turn_only_to_save_memory(drawn, at_a_time, remat):
    at_a_time(1)
    gradients = functools.partial(value_and_gradients, functools.partial(apply, remat=remat))
    with one_device():
        assert ("scan" in str(jax.make_jaxpr(gradients)(*drawn))) == remat


def test_with_remat_maps_between_are_not_kept_for_the_gradients(drawn, at_a_time):
    at_a_time(1)
    in_turn = functools.partial(value_and_gradients, functools.partial(apply, remat=True))
    with one_device():
        looped = jax.jit(in_turn).lower(*drawn).compile()
    whole = functools.partial(value_and_gradients, branch)
    at_once = jax.jit(whole).lower(*drawn).compile()
    needed = [program.memory_analysis().temp_size_in_bytes for program in (looped, at_once)]
    assert needed[0] < 0.6 * needed[1]


def test_forward_mode_is_refused_by_name(drawn, at_a_time):
    at_a_time(1)
    images, kernels, _ = drawn
    with one_device(), pytest.raises(TypeError, match="in_turn has derivatives of reverse mode"):
        jax.jvp(lambda images: apply(images, kernels), (images,), (images,))
