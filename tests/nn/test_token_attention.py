"""Attention over tokens, against softmax written out in NumPy and JAX's own attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.nn.token_attention import TokenAttention, self_attention

HEADS = 3
# Not a power of two anywhere, so that exchanged axes do not fit.
QKV = np.random.default_rng(0).standard_normal((2, 5, 3 * HEADS * 7)).astype(np.float32)
GRADIENT = np.random.default_rng(1).standard_normal((2, 5, HEADS * 7)).astype(np.float32)


def written_out(qkv: np.ndarray) -> np.ndarray:
    """Return the definition, head by head, in float64."""
    query, key, value = np.split(qkv.astype(np.float64), 3, axis=-1)
    out = np.zeros_like(query)
    for image in range(len(qkv)):
        for head in range(HEADS):
            own = (image, slice(None), slice(7 * head, 7 * head + 7))
            logits = query[own] @ key[own].T / np.sqrt(7)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[own] = weights / weights.sum(-1, keepdims=True) @ value[own]
    return out


def of_jax(qkv: jax.Array) -> jax.Array:
    split = qkv.reshape(2, 5, 3, HEADS, 7)
    query, key, value = split[:, :, 0], split[:, :, 1], split[:, :, 2]
    return jax.nn.dot_product_attention(query, key, value).reshape(2, 5, HEADS * 7)


@functools.partial(jax.jit, static_argnums=0)
def gradient_of(function, qkv: jax.Array) -> jax.Array:
    return jax.vjp(function, qkv)[1](jnp.asarray(GRADIENT, qkv.dtype))[0]


def own(qkv: jax.Array) -> jax.Array:
    return self_attention(qkv, heads=HEADS)


run_own = jax.jit(own)


def test_the_output_is_the_mean_of_values_weighted_by_softmax():
    # Float32 roundings of sums of 7 and 5 products.
    np.testing.assert_allclose(run_own(QKV), written_out(QKV), atol=1e-6)


def test_the_gradient_is_that_of_autodiff():
    qkv = jnp.asarray(QKV)
    expected = gradient_of(of_jax, qkv)
    np.testing.assert_allclose(gradient_of(own, qkv), expected, atol=2e-6)


@pytest.mark.slow
def test_the_gradient_has_a_gradient():
    def of_gradient(function):
        return jax.grad(lambda qkv: jnp.sum(jnp.square(gradient_of(function, qkv))))

    qkv = jnp.asarray(QKV)
    np.testing.assert_allclose(of_gradient(own)(qkv), of_gradient(of_jax)(qkv), atol=2e-5)


def test_large_logits_do_not_overflow():
    qkv = jnp.asarray(100 * QKV)
    np.testing.assert_allclose(run_own(qkv), written_out(100 * QKV), atol=1e-3)
    assert np.isfinite(gradient_of(own, qkv)).all()


def test_bfloat16_is_near_float32_and_stays_bfloat16():
    qkv = jnp.asarray(QKV, jnp.bfloat16)
    found, gradient = run_own(qkv), gradient_of(own, qkv)
    assert found.dtype == gradient.dtype == jnp.bfloat16
    # A few roundings of 2**-9 of values up to 3.
    np.testing.assert_allclose(np.asarray(found, np.float32), written_out(QKV), atol=0.03)
    expected = gradient_of(of_jax, jnp.asarray(QKV))
    np.testing.assert_allclose(np.asarray(gradient, np.float32), expected, atol=0.05)


def test_no_weights_of_all_pairs_are_kept_for_the_backward_pass():
    tokens, channels = 64, HEADS * 7
    qkv = jax.ShapeDtypeStruct((1, tokens, 3 * channels), jnp.float32)
    _, pullback = jax.eval_shape(lambda qkv: jax.vjp(own, qkv), qkv)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pullback))
    assert kept == tokens * (3 * channels + HEADS) < HEADS * tokens**2


def test_forward_mode_is_refused_by_name():
    qkv = jnp.asarray(QKV)
    with pytest.raises(TypeError, match="self_attention has derivatives of reverse mode only"):
        jax.jvp(own, (qkv,), (qkv,))


def test_the_layer_has_one_product_for_queries_keys_and_values():
    layer = TokenAttention(6, 2, rngs=nnx.Rngs(0))
    x = jnp.asarray(QKV[..., :6])

    @nnx.jit
    def run(layer, x):
        return layer(x), layer.project(self_attention(layer.qkv(x), heads=2))

    assert layer.qkv.kernel.shape == (6, 18)
    np.testing.assert_allclose(*run(layer, x), rtol=1e-6)


def test_dropout_is_behind_the_projection_and_in_training_only():
    layer = TokenAttention(6, 2, drop_rate=0.5, rngs=nnx.Rngs(0))
    x = jnp.asarray(QKV[..., :6])
    layer.eval()
    whole = np.asarray(layer(x))
    layer.train()
    dropped = np.asarray(layer(x, rngs=nnx.Rngs(dropout=1)))
    assert 0 < np.mean(dropped == 0) < 1
    # Kept entries are doubled, in float32.
    np.testing.assert_allclose(dropped[dropped != 0], 2 * whole[dropped != 0], rtol=1e-5)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="heads=4 must divide channels=6"):
        TokenAttention(6, 4, rngs=nnx.Rngs(0))
