"""The PyTorch network is the same network: names, logits, loss and gradients."""

import golden_weights
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import networks
from lska_jax import create_model
from lska_jax.nn.functional import assign, batch_stats, parameters

torch = pytest.importorskip("torch")
# After the check that torch is there.
from benchmarks import torch_van  # noqa: E402

FORMS = ("lska", "lka", "lska_trivial", "lka_trivial")
SMALL = {"dims": (8, 16), "depths": (1, 2), "ffn_ratios": (4, 2), "num_classes": 10}


def random_model(attention: str):
    """Return a small model whose weights and statistics differ from where they start."""
    model = create_model(f"van_{attention}_tiny", k=11, **SMALL)
    arrays = {**parameters(model), **batch_stats(model)}
    values = {}
    for path, array in arrays.items():
        noise = 0.2 * golden_weights.normal(path, array.shape)
        values[path] = jnp.asarray(np.exp(noise) if path.endswith("var") else array + noise)
    assign(model, values)
    return model


def batch(size: int = 2):
    return networks.random_batch(size, 48, 10)


def relative_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs.detach())
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", ["lska_tiny_k23", "lka_tiny"])
def test_names_and_shapes_are_those_of_the_reference(name):
    model = create_model("van_lka_tiny" if name == "lka_tiny" else "van_lska_tiny", k=23)
    state = torch_van.TorchVAN(model.config).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == golden_weights.keys(name)


@pytest.mark.parametrize("attention", FORMS)
def test_logits_are_the_same_plain_and_folded_in_both_memory_formats(attention):
    model = random_model(attention)
    images, _ = batch()
    ours = networks.jax_inference(model, images)()
    theirs = networks.torch_inference(model, images)
    assert len(theirs) == 4
    for name, call in theirs.items():
        # Float32 rounding through three blocks.
        assert relative_error(ours, call()) < 1e-5, name


def test_the_train_step_has_the_same_loss_and_gradients():
    model = random_model("lska")
    images, labels = batch(4)
    loss, gradients, _ = networks.jax_train_step(model, images, labels)()
    call = networks.torch_train_step(model, images, labels)["torch channels_last"]
    their_loss, their_gradients = call()
    # Float32 rounding through three blocks normalised by batch statistics.
    assert float(loss) == pytest.approx(float(their_loss.detach()), rel=1e-5)
    ours = sum(float(jnp.sum(g**2)) for g in gradients.values())
    theirs = sum(float(torch.sum(g**2)) for g in their_gradients)
    # Sums of squares double the relative rounding of the gradients.
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert sum(g.size for g in gradients.values()) == sum(g.numel() for g in their_gradients)


def test_folding_leaves_no_batch_norm():
    network = torch_van.folded(torch_van.torch_van(random_model("lska")))
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
