"""Schedule and AdamW: the reference's values, and optax's own AdamW as the yardstick."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lska_jax.training.optimizer import decay_mask, make_optimizer, muon_mask
from lska_jax.training.schedules import cosine_schedule, drops_schedule, poly_schedule

STEPS_PER_EPOCH = 7
RECIPE = {
    "epochs": 300,
    "warmup_epochs": 5,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-6,
    "warmup_learning_rate": 1e-6,
}
# The learning rates that timm 0.4.12 sets in the reference's train.py.
REFERENCE = {
    0: 1e-6,
    1: 2.008e-4,
    4: 8.002e-4,
    5: 9.993155e-4,
    150: 5.005e-4,
    299: 1.027388e-6,
    300: 1e-6,
    309: 1e-6,
}
# The reference's values have seven digits; float32 has seven too.
RTOL = 1e-6


@pytest.mark.parametrize("epoch", REFERENCE)
@pytest.mark.parametrize("step_of_epoch", [0, 3, STEPS_PER_EPOCH - 1])
def test_the_rate_is_the_references_during_the_whole_epoch(epoch, step_of_epoch):
    schedule = cosine_schedule(steps_per_epoch=STEPS_PER_EPOCH, **RECIPE)
    rate = schedule(epoch * STEPS_PER_EPOCH + step_of_epoch)
    np.testing.assert_allclose(rate, REFERENCE[epoch], rtol=RTOL)


@pytest.mark.parametrize("epoch", REFERENCE)
def test_by_step_the_rate_is_the_references_at_the_start_of_the_epoch(epoch):
    schedule = cosine_schedule(steps_per_epoch=STEPS_PER_EPOCH, by="step", **RECIPE)
    np.testing.assert_allclose(schedule(epoch * STEPS_PER_EPOCH), REFERENCE[epoch], rtol=RTOL)


def test_by_step_the_rate_moves_within_the_epoch():
    schedule = cosine_schedule(steps_per_epoch=4, by="step", **RECIPE)
    # A quarter of the way from 1e-6 to 2.008e-4, and the cosine at a fraction of an epoch.
    np.testing.assert_allclose(schedule(1), 1e-6 + 1.998e-4 / 4, rtol=RTOL)
    cosine = 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * 100.5 / 300))
    np.testing.assert_allclose(schedule(402), cosine, rtol=RTOL)


def test_the_rate_is_exact_at_large_steps():
    """float32 holds whole numbers up to 2**24 only; epochs are divided as integers."""
    steps_per_epoch = 160_147
    schedule = cosine_schedule(steps_per_epoch=steps_per_epoch, **RECIPE)
    last_of_149, first_of_150 = 150 * steps_per_epoch - 1, 150 * steps_per_epoch
    np.testing.assert_allclose(schedule(first_of_150), REFERENCE[150], rtol=RTOL)
    cosine = 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * 149 / 300))
    np.testing.assert_allclose(schedule(last_of_149), cosine, rtol=RTOL)


def test_without_warmup_the_rate_starts_at_the_top():
    schedule = cosine_schedule(steps_per_epoch=STEPS_PER_EPOCH, **RECIPE | {"warmup_epochs": 0})
    np.testing.assert_allclose(schedule(0), 1e-3, rtol=RTOL)


def test_the_schedule_is_the_same_under_jit():
    schedule = cosine_schedule(steps_per_epoch=STEPS_PER_EPOCH, **RECIPE)
    steps = jnp.arange(0, 310 * STEPS_PER_EPOCH, 31)
    traced = jax.jit(jax.vmap(schedule))(steps)
    np.testing.assert_allclose(traced, [schedule(int(step)) for step in steps], rtol=RTOL)


def test_an_unknown_clock_is_refused():
    with pytest.raises(ValueError, match=r"schedule_by='minute' is unknown; allowed: epoch, step"):
        cosine_schedule(steps_per_epoch=STEPS_PER_EPOCH, by="minute", **RECIPE)


def draw(seed: int, scale: float = 1.0) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    shapes = {
        "conv/kernel": (3, 3, 1, 4),
        "linear/kernel": (4, 5),
        "norm/scale": (4,),
        "bias": (5,),
    }
    return {
        name: jnp.asarray(scale * generator.standard_normal(shape), jnp.float32)
        for name, shape in shapes.items()
    }


def test_weights_decay_and_one_dimensional_parameters_do_not():
    assert decay_mask(draw(0)) == {
        "conv/kernel": True,
        "linear/kernel": True,
        "norm/scale": False,
        "bias": False,
    }


def test_one_dimensional_parameters_of_a_real_model_are_left_alone_by_the_decay():
    from lska_jax.nn.functional import parameters
    from lska_jax.weights.create import create_model

    decays: dict[str, bool] = {}

    def note_decays() -> None:
        model = create_model("van_lska_tiny", depths=(1, 1, 1, 1))
        decays.update(decay_mask(parameters(model)))

    jax.eval_shape(note_decays)
    spared = {path for path, does_decay in decays.items() if not does_decay}
    assert spared == {path for path in decays if path.endswith(("/bias", "/scale"))}


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_steps_equal_optax_adamw_with_the_same_schedule(clip_norm):
    schedule = cosine_schedule(steps_per_epoch=2, **RECIPE)
    settings = {"weight_decay": 0.05, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-6}
    ours = make_optimizer(clip_norm=clip_norm, **settings)
    theirs = optax.adamw(
        schedule, b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.05, mask=decay_mask(draw(0))
    )
    if clip_norm:
        theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs)
    our_params = their_params = draw(0)
    our_state, their_state = ours.init(our_params), theirs.init(their_params)
    update_ours, update_theirs = jax.jit(ours.update), jax.jit(theirs.update)
    for step in range(12):
        gradients = draw(step + 1, scale=0.1 * (step + 1))
        updates, our_state = update_ours(gradients, our_state, our_params)
        rate = schedule(step)
        our_params = jax.tree.map(lambda p, u, rate=rate: p + rate * u, our_params, updates)
        updates, their_state = update_theirs(gradients, their_state, their_params)
        their_params = optax.apply_updates(their_params, updates)
    for name, array in our_params.items():
        # The rate multiplies before or after the decay is added: one rounding a step.
        np.testing.assert_allclose(array, their_params[name], rtol=1e-6, atol=1e-7)


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    gradients = draw(1, scale=100.0)
    norm = float(optax.tree.norm(gradients))
    clipped = make_optimizer(weight_decay=0.0, clip_norm=2.0)
    plain = make_optimizer(weight_decay=0.0)
    scaled = jax.tree.map(lambda g: g * (2.0 / norm), gradients)
    _, clipped_state = jax.jit(clipped.update)(gradients, clipped.init(draw(0)), draw(0))
    _, plain_state = jax.jit(plain.update)(scaled, plain.init(draw(0)), draw(0))
    first_moment = optax.tree.get(clipped_state, "mu")
    for name, array in optax.tree.get(plain_state, "mu").items():
        np.testing.assert_allclose(first_moment[name], array, rtol=1e-6)


def test_a_gradient_within_the_bound_is_not_changed_by_clipping():
    gradients = draw(1, scale=1e-3)
    clipped = make_optimizer(weight_decay=0.05, clip_norm=2.0)
    plain = make_optimizer(weight_decay=0.05)
    ours, _ = clipped.update(gradients, clipped.init(draw(0)), draw(0))
    theirs, _ = plain.update(gradients, plain.init(draw(0)), draw(0))
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_poly_falls_to_zero_and_a_warm_up_multiplies_it():
    schedule = poly_schedule(
        total_steps=100,
        learning_rate=2.0,
        power=0.9,
        warmup_steps=10,
        warmup_learning_rate=2e-6,
    )
    for step in (0, 3, 10, 50, 99, 100):
        regular = 2.0 * (1 - step / 100) ** 0.9
        factor = 1 - max(1 - step / 10, 0) * (1 - 1e-6)
        np.testing.assert_allclose(schedule(step), regular * factor, rtol=2e-6, atol=1e-9)


def test_drops_leave_a_tenth_from_each_step_on():
    schedule = drops_schedule(drop_steps=[8, 11], learning_rate=1.0)
    rates = [float(schedule(step)) for step in (0, 7, 8, 10, 11, 20)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    assert float(drops_schedule(drop_steps=[], learning_rate=1.0)(10**6)) == 1.0


def test_dense_recipes_decay_everything_or_all_but_a_backbones_norms():
    params = {
        "backbone/stages/0/norm/scale": jnp.ones(2),
        "backbone/stages/0/blocks/0/norm_1/bias": jnp.ones(2),
        "backbone/stages/0/blocks/0/scale_1/scale": jnp.ones(2),
        "branches/0/blocks/0/norm/scale": jnp.ones(2),
    }
    assert all(decay_mask(params, decay="all").values())
    assert list(decay_mask(params, decay="not_backbone_norms").values()) == [0, 0, 1, 1]


MATRICES = {
    "hidden/kernel": (12, 20),
    "patch/kernel": (3, 3, 8, 12),
    "stem/kernel": (7, 7, 3, 12),
    "depthwise/kernel": (1, 5, 1, 12),
    "hidden/bias": (20,),
    "positions": (9, 12),
    "classifier/kernel": (20, 10),
}


def test_muon_takes_the_matrices_between_hidden_channels():
    params = {path: jnp.zeros(shape) for path, shape in MATRICES.items()}
    taken = muon_mask(params, others=("positions", "classifier/kernel"))
    assert {path for path, is_taken in taken.items() if is_taken} == {
        "hidden/kernel",
        "patch/kernel",
    }


def test_the_first_step_of_muon_makes_the_gradient_orthogonal_and_leaves_the_rest_to_adamw():
    generator = np.random.default_rng(0)
    params, gradients = (
        {p: jnp.asarray(generator.standard_normal(s), jnp.float32) for p, s in MATRICES.items()}
        for _ in range(2)
    )
    settings = {"weight_decay": 0.05, "no_decay": ("positions",)}
    muon = make_optimizer(muon_rate=10.0, head=("classifier/kernel",), **settings)
    updates, _ = jax.jit(muon.update)(gradients, muon.init(params), params)
    adamw = make_optimizer(**settings)
    expected, _ = jax.jit(adamw.update)(gradients, adamw.init(params), params)
    for path, update in updates.items():
        if path not in ("hidden/kernel", "patch/kernel"):
            np.testing.assert_allclose(update, expected[path], rtol=1e-6)
            continue
        outputs = update.shape[-1]
        left, _, right = np.linalg.svd(gradients[path].reshape(-1, outputs), full_matrices=False)
        direction = -(np.asarray(update) / 10 + 0.05 * np.asarray(params[path]))
        direction = direction.reshape(-1, outputs) / max(1, outputs / left.shape[0]) ** 0.5
        # Five Newton-Schulz steps bring singular values to between 0.68 and 1.13, no closer.
        values = np.einsum("ik,ij,kj->k", left, direction, right)
        assert values.min() > 0.6 and values.max() < 1.2
        rotated = np.linalg.svd(direction, full_matrices=False)
        np.testing.assert_allclose(np.sort(values), np.sort(rotated[1]), rtol=1e-3)
