import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.losses import binary_cross_entropy, cross_entropy, focal_loss


@pytest.fixture(scope="module")
def stored():
    return golden_baselines.golden("dense/ops_losses")


def test_the_focal_loss_and_its_gradient_are_those_of_the_reference(stored):
    # The label behind the last class is background.
    targets = jax.nn.one_hot(stored["focal/labels"], 5, dtype=jnp.float32)
    weights = jnp.asarray(stored["focal/weights"])[:, None]

    def loss(logits):
        return jnp.sum(weights * focal_loss(logits, targets)) / 9

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(stored["focal/logits"]))
    np.testing.assert_allclose(value, stored["focal/loss_avg_factor_9"], rtol=1e-5)
    np.testing.assert_allclose(gradient, stored["focal/gradient"], rtol=1e-4, atol=1e-7)


def test_the_losses_of_the_region_proposals_are_those_of_the_reference(stored):
    weights = jnp.asarray(stored["focal/weights"])
    targets = jnp.asarray(stored["rpn_bce/labels_0_is_object"] == 0, jnp.float32)
    losses = binary_cross_entropy(jnp.asarray(stored["rpn_bce/logits"])[:, 0], targets)
    value = jnp.sum(weights * losses) / 30
    np.testing.assert_allclose(value, stored["rpn_bce/loss_avg_factor_30"], rtol=1e-5)


def test_the_loss_of_the_boxes_classes_is_that_of_the_reference(stored):
    labels = jnp.asarray(stored["focal/labels"], jnp.int32)
    losses = cross_entropy(jnp.asarray(stored["softmax/logits"]), labels)
    value = jnp.sum(jnp.asarray(stored["focal/weights"]) * losses) / 30
    np.testing.assert_allclose(value, stored["softmax/loss_avg_factor_30"], rtol=1e-5)


def test_the_loss_of_masks_is_that_of_the_reference(stored):
    logits = stored["mask/logits"][np.arange(6), stored["mask/classes"]]
    targets = jnp.asarray(stored["mask/targets"], jnp.float32)
    value = jnp.mean(binary_cross_entropy(jnp.asarray(logits), targets))
    np.testing.assert_allclose(value, stored["mask/loss"][0], rtol=1e-5)


@pytest.mark.parametrize("loss", [focal_loss, binary_cross_entropy])
def test_losses_of_extreme_logits_are_finite_and_so_are_their_gradients(loss):
    logits = jnp.array([-1e4, -90.0, 0.0, 90.0, 1e4])
    call = jax.jit(jax.value_and_grad(lambda x, t: jnp.sum(loss(x, t))))
    for target in (0.0, 1.0):
        value, gradient = call(logits, jnp.full((5,), target))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_losses_of_bfloat16_logits_are_float32():
    logits = jnp.zeros((3,), jnp.bfloat16)
    assert focal_loss(logits, jnp.zeros((3,))).dtype == jnp.float32
    assert binary_cross_entropy(logits, jnp.zeros((3,))).dtype == jnp.float32
