"""One training step on small models, where every number can be worked out by hand."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.nn.functional import ModelFunctions
from lska_jax.running import parallel
from lska_jax.tasks.classification import Classification
from lska_jax.tasks.task import Batch, Task
from lska_jax.training.config import base_config
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.schedules import cosine_schedule
from lska_jax.training.state import TrainState, abstract_state, host_state, place_state
from lska_jax.training.step import StepSpec, eval_step, train_step

ROWS, SIZE, CLASSES = 16, 4, 5
SMOOTHING = 0.1

OPTIMIZER = make_optimizer(weight_decay=0.05)
SCHEDULE = cosine_schedule(
    steps_per_epoch=2,
    epochs=10,
    warmup_epochs=2,
    learning_rate=1e-2,
    min_learning_rate=1e-5,
    warmup_learning_rate=1e-3,
)
SPEC = StepSpec()
EMA_DECAY = 0.9
EMA_SPEC = StepSpec(ema_decay=EMA_DECAY)
WARMED_UP = dataclasses.replace(EMA_SPEC, ema_warmup=True)

# float32 sums in another order.
RTOL = 1e-5


def classification(*, mixup_alpha: float = 0.0) -> Classification:
    config = base_config()
    config.model.num_classes = CLASSES
    config.data.update({"mean": (0.0,) * 3, "std": (1.0,) * 3, "erase_prob": 0.0})
    config.data.update({"mixup_alpha": mixup_alpha, "cutmix_alpha": 0.0})
    config.training.label_smoothing = SMOOTHING
    return Classification(config)


TASK, MIXUP_TASK = classification(), classification(mixup_alpha=0.8)


class Toy(nnx.Module):
    """A linear classifier that single pixels of its images can drive to infinity.

    The first pixel's red at 255 makes the loss infinite and leaves the gradient finite; its green
    at 0 leaves the loss finite and makes the gradient NaN; its blue at 128, the value of a
    broken image, makes that row's own logits infinite. Other values have no such effect.
    """

    def __init__(self, *, use_batch_norm: bool):
        rngs = nnx.Rngs(0)
        self.norm = nnx.data(nnx.BatchNorm(3, momentum=0.9, rngs=rngs) if use_batch_norm else None)
        self.linear = nnx.Linear(SIZE * SIZE * 3, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        red, green, blue = (images[:, 0, 0, channel, None] for channel in range(3))
        x = images if self.norm is None else self.norm(images)
        logits = self.linear(x.reshape(len(x), -1))
        logits += jnp.where((red >= 1.0) & (jnp.arange(CLASSES) == 0), -jnp.inf, 0.0)
        # A constant for all classes; its derivative is 0, and 0 / 0 where a green is 0.
        logits += jnp.sqrt(jnp.min(green) + (0.0 * self.linear.bias[0]) ** 2)
        return logits + jnp.where(jnp.abs(blue - 128 / 255) < 1e-6, jnp.inf, 0.0)


def make_functions(*, use_batch_norm: bool) -> ModelFunctions:
    return ModelFunctions(Toy(use_batch_norm=use_batch_norm))


def fresh_state(*, use_batch_norm: bool, use_ema: bool = False) -> TrainState:
    return host_state(Toy(use_batch_norm=use_batch_norm), OPTIMIZER, use_ema=use_ema)


@functools.cache
def jitted_step(spec: StepSpec, *, use_batch_norm: bool, task: Task = TASK) -> Callable:
    return jax.jit(
        functools.partial(
            train_step,
            task=task,
            functions=make_functions(use_batch_norm=use_batch_norm),
            optimizer=OPTIMIZER,
            schedule=SCHEDULE,
            spec=spec,
        )
    )


def draw_batch(seed: int, *, masked: tuple[int, ...] = ()) -> Batch:
    generator = np.random.default_rng(seed)
    # Neither 0 nor 255 nor 128: nothing of what the toy cannot bear.
    images = generator.integers(1, 120, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.ones(ROWS, bool)
    mask[list(masked)] = False
    labels = generator.integers(CLASSES, size=ROWS, dtype=np.int32)
    return {"image": jnp.asarray(images), "label": jnp.asarray(labels), "mask": jnp.asarray(mask)}


def with_pixel(batch: Batch, *, row: int, channel: int, value: int) -> Batch:
    return batch | {"image": batch["image"].at[row, 0, 0, channel].set(value)}


LOSS_BREAKS = functools.partial(with_pixel, row=3, channel=0, value=255)
GRADIENT_BREAKS = functools.partial(with_pixel, row=3, channel=1, value=0)


def soft_target_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Timm's SoftTargetCrossEntropy: mean over rows of sum(-target * log_softmax(logits))."""
    logits = logits.astype(np.float64)
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    return float(np.mean(np.sum(-targets * log_softmax, axis=1)))


def smooth_targets(labels: np.ndarray) -> np.ndarray:
    """Timm's one-hot: smoothing / classes everywhere, 1 - smoothing more at the label."""
    off = SMOOTHING / CLASSES
    return np.where(np.arange(CLASSES) == labels[:, None], 1.0 - SMOOTHING + off, off)


def toy_logits(state: TrainState, batch: Batch) -> np.ndarray:
    kernel = np.asarray(state.params["linear/kernel"], np.float64)
    images = np.asarray(batch["image"], np.float64).reshape(ROWS, -1) / 255
    return images @ kernel + np.asarray(state.params["linear/bias"])


def assert_same(left: object, right: object, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def test_the_loss_is_timms_soft_target_cross_entropy():
    state, batch = fresh_state(use_batch_norm=False), draw_batch(0)
    _, metrics = jitted_step(SPEC, use_batch_norm=False)(state, batch)
    expected = soft_target_cross_entropy(
        toy_logits(state, batch), smooth_targets(np.asarray(batch["label"]))
    )
    np.testing.assert_allclose(metrics["loss"], expected, rtol=RTOL)


def test_with_masked_rows_the_loss_is_the_mean_over_the_others():
    masked = (0, 5, 6)
    state, batch = fresh_state(use_batch_norm=False), draw_batch(0, masked=masked)
    _, metrics = jitted_step(SPEC, use_batch_norm=False)(state, batch)
    kept = np.setdiff1d(np.arange(ROWS), masked)
    targets = smooth_targets(np.asarray(batch["label"]))[kept]
    expected = soft_target_cross_entropy(toy_logits(state, batch)[kept], targets)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=RTOL)
    assert int(metrics["broken"]) == len(masked)


def test_what_masked_rows_hold_changes_nothing_even_where_it_makes_infinite_logits():
    step = jitted_step(SPEC, use_batch_norm=False)
    batch = draw_batch(0, masked=(3,))
    spoiled = with_pixel(batch, row=3, channel=2, value=128)
    spoiled["label"] = spoiled["label"].at[3].set((spoiled["label"][3] + 1) % CLASSES)
    clean_state, clean_metrics = step(fresh_state(use_batch_norm=False), batch)
    state, metrics = step(fresh_state(use_batch_norm=False), spoiled)
    assert int(metrics["bad_steps"]) == 0
    assert_same(state, clean_state)
    assert_same(metrics, clean_metrics)


def test_a_batch_of_masked_rows_only_has_no_loss_and_no_gradient():
    batch = draw_batch(0, masked=tuple(range(ROWS)))
    _, metrics = jitted_step(SPEC, use_batch_norm=False)(fresh_state(use_batch_norm=False), batch)
    assert float(metrics["loss"]) == float(metrics["gradient_norm"]) == 0.0
    assert int(metrics["broken"]) == ROWS


def test_mixed_targets_weigh_both_labels_as_the_pixels_are_weighed():
    """With Mixup the loss is that of timm's blended images and targets, for some weight."""
    state, batch = fresh_state(use_batch_norm=False), draw_batch(0)
    _, metrics = jitted_step(SPEC, use_batch_norm=False, task=MIXUP_TASK)(state, batch)
    logits, targets = toy_logits(state, batch), smooth_targets(np.asarray(batch["label"]))

    def mixed_loss(weight: float) -> float:
        # The toy is linear: blending images is blending logits.
        blend = [weight * part + (1 - weight) * part[::-1] for part in (logits, targets)]
        return soft_target_cross_entropy(*blend)

    weights = np.linspace(0, 1, 20_001)
    errors = [abs(mixed_loss(weight) - float(metrics["loss"])) for weight in weights]
    assert min(errors) < 1e-4
    assert abs(mixed_loss(1.0) - float(metrics["loss"])) > 1e-3


@pytest.mark.parametrize("breaks", [LOSS_BREAKS, GRADIENT_BREAKS], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(breaks):
    step = jitted_step(EMA_SPEC, use_batch_norm=True)
    before, _ = step(fresh_state(use_batch_norm=True, use_ema=True), draw_batch(0))
    after, metrics = step(before, breaks(draw_batch(1)))
    is_finite = {name: bool(jnp.isfinite(metrics[name])) for name in ("loss", "gradient_norm")}
    assert is_finite == {
        "loss": breaks is GRADIENT_BREAKS,
        "gradient_norm": breaks is LOSS_BREAKS,
    }
    unchanged = ("params", "batch_stats", "opt_state", "ema")
    assert_same(
        [getattr(after, name) for name in unchanged], [getattr(before, name) for name in unchanged]
    )
    assert (int(after.step), int(before.step)) == (2, 1)
    assert int(after.bad_steps) == int(metrics["bad_steps"]) == 1


def test_a_good_step_does_change_all_of_it():
    before = fresh_state(use_batch_norm=True, use_ema=True)
    after, _ = jitted_step(EMA_SPEC, use_batch_norm=True)(before, draw_batch(0))
    for name in ("params", "batch_stats", "opt_state", "ema"):
        pairs = zip(
            jax.tree.leaves(getattr(before, name)),
            jax.tree.leaves(getattr(after, name)),
            strict=True,
        )
        assert any(not np.array_equal(a, b) for a, b in pairs), name


def test_bad_steps_count_in_a_row_and_reset_after_a_good_one():
    step, state = jitted_step(SPEC, use_batch_norm=False), fresh_state(use_batch_norm=False)
    counts = []
    for breaks in (LOSS_BREAKS, GRADIENT_BREAKS, None, LOSS_BREAKS):
        batch = draw_batch(0)
        state, metrics = step(state, breaks(batch) if breaks else batch)
        counts.append(int(metrics["bad_steps"]))
    assert counts == [1, 2, 0, 1]


def test_a_skipped_step_does_not_hold_the_schedule_back():
    step, state = jitted_step(SPEC, use_batch_norm=False), fresh_state(use_batch_norm=False)
    rates = []
    for number in range(6):
        batch = draw_batch(number)
        state, metrics = step(state, LOSS_BREAKS(batch) if number in (1, 2) else batch)
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [float(SCHEDULE(number)) for number in range(6)], rtol=1e-6)
    assert len(set(rates)) == 3


def test_a_skipped_step_leaves_adam_where_it_was():
    """A run with a skipped step has the parameters of the run that never had it, rate aside."""
    step = jitted_step(SPEC, use_batch_norm=False)
    skipped = without = fresh_state(use_batch_norm=False)
    skipped, _ = step(skipped, LOSS_BREAKS(draw_batch(0)))
    without = without._replace(step=without.step + 1)
    skipped, _ = step(skipped, draw_batch(1))
    without, _ = step(without, draw_batch(1))
    assert_same(skipped, without)


@pytest.mark.parametrize(
    ("spec", "decays"),
    [(EMA_SPEC, [EMA_DECAY] * 4), (WARMED_UP, [1 / 10, 2 / 11, 3 / 12, 4 / 13])],
)
def test_averages_of_parameters_and_statistics_follow_the_formula(spec, decays):
    step = jitted_step(spec, use_batch_norm=True)
    state = fresh_state(use_batch_norm=True, use_ema=True)
    expected = jax.tree.map(np.float64, {"params": state.params, "batch_stats": state.batch_stats})
    for number, decay in enumerate(decays):
        state, _ = step(state, draw_batch(number))
        current = {"params": state.params, "batch_stats": state.batch_stats}
        average = lambda old, new, d=decay: d * old + (1 - d) * np.float64(new)  # noqa: E731
        expected = jax.tree.map(average, expected, current)
    assert int(state.bad_steps) == 0
    assert_same(state.ema, expected, rtol=RTOL, atol=1e-7)
    assert_same(state.for_evaluation(), (state.ema["params"], state.ema["batch_stats"]))


def test_without_averages_the_parameters_themselves_are_evaluated():
    state = fresh_state(use_batch_norm=True)
    assert state.ema == {}
    assert_same(state.for_evaluation(), (state.params, state.batch_stats))


@pytest.mark.parametrize("masked", [(), (0, 1, 2, 7)])
def test_accumulated_microbatches_equal_one_large_batch(masked):
    """Without BatchNorm nothing ties rows together; the broken rows lie unevenly."""
    whole, parts = SPEC, dataclasses.replace(SPEC, gradient_accumulation=4)
    results = []
    for spec in (whole, parts):
        state = fresh_state(use_batch_norm=False)
        for number in range(3):
            batch = draw_batch(number, masked=masked)
            state, metrics = jitted_step(spec, use_batch_norm=False)(state, batch)
        assert int(metrics["bad_steps"]) == 0
        results.append((state.params, state.opt_state, metrics))
    # Adam divides by the root of small squares, which magnifies a rounding.
    assert_same(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_accumulation_with_batch_norm_equals_a_loop_over_the_microbatches():
    """BatchNorm sees one microbatch at a time; every fourth row belongs to the same one."""
    parts = 4
    spec = dataclasses.replace(SPEC, gradient_accumulation=parts)
    state, batch = fresh_state(use_batch_norm=True), draw_batch(0)
    after, metrics = jitted_step(spec, use_batch_norm=True)(state, batch)

    functions = make_functions(use_batch_norm=True)
    images = jnp.asarray(batch["image"], jnp.float32) / 255
    targets = jnp.asarray(smooth_targets(np.asarray(batch["label"])), jnp.float32)

    def loss_of(params, stats, rows):
        logits, stats = functions.train(params, stats, images[rows], key=jax.random.key(0))
        losses = -jnp.sum(targets[rows] * jax.nn.log_softmax(logits), axis=1)
        return jnp.mean(losses), stats

    stats, losses, squares = state.batch_stats, [], []
    gradients = jax.tree.map(jnp.zeros_like, state.params)
    differentiate = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    for part in range(parts):
        rows = np.arange(part, ROWS, parts)
        (loss, stats), part_gradients = differentiate(state.params, stats, rows)
        losses.append(float(loss))
        gradients = jax.tree.map(lambda a, b: a + b / parts, gradients, part_gradients)
    squares = [float(jnp.sum(g**2)) for g in gradients.values()]
    assert int(metrics["bad_steps"]) == 0
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=RTOL)
    np.testing.assert_allclose(metrics["gradient_norm"], np.sqrt(sum(squares)), rtol=RTOL)
    assert_same(after.batch_stats, stats, rtol=RTOL)


def test_accumulation_moves_no_rows_between_devices():
    mesh = parallel.make_mesh()
    spec = dataclasses.replace(SPEC, gradient_accumulation=2)
    state = abstract_state(fresh_state(use_batch_norm=False), mesh)
    sharding = parallel.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for name, array in draw_batch(0).items()
    }
    text = jitted_step(spec, use_batch_norm=False).lower(state, batch).compile().as_text()
    assert "all-reduce" in text
    for collective in ("all-to-all", "all-gather", "collective-permute"):
        assert collective not in text


def test_the_evaluation_step_uses_the_running_statistics_and_the_mask():
    state = fresh_state(use_batch_norm=True)
    stats = {path: array + 0.5 for path, array in state.batch_stats.items()}
    batch = draw_batch(0, masked=(1, 2))
    functions = make_functions(use_batch_norm=True)
    step = jax.jit(functools.partial(eval_step, task=TASK, functions=functions))
    counted, sums = step(state.params, stats, batch)
    images = np.asarray(batch["image"], np.float64) / 255
    normal = (images - np.asarray(stats["norm/mean"])) / np.sqrt(
        np.asarray(stats["norm/var"]) + 1e-5
    )
    logits = normal.reshape(ROWS, -1) @ np.asarray(state.params["linear/kernel"], np.float64)
    kept = np.asarray(batch["mask"])
    labels = np.asarray(batch["label"])[kept]
    assert int(counted) == int(sums.examples) == ROWS - 2
    assert int(sums.top1) == int(np.sum(logits[kept].argmax(axis=1) == labels))
    one_hot = np.eye(CLASSES)[labels]
    expected = soft_target_cross_entropy(logits[kept], one_hot)
    np.testing.assert_allclose(sums.means()["loss"], expected, rtol=RTOL)


def test_random_keys_follow_from_seed_and_step_alone():
    step = jitted_step(SPEC, use_batch_norm=False, task=MIXUP_TASK)
    batch = draw_batch(0)
    state = fresh_state(use_batch_norm=False)
    first, again = step(state, batch)[1]["loss"], step(state, batch)[1]["loss"]
    later = step(state._replace(step=state.step + 1), batch)[1]["loss"]
    other_seed = jitted_step(StepSpec(seed=1), use_batch_norm=False, task=MIXUP_TASK)
    other = other_seed(state, batch)[1]["loss"]
    assert float(first) == float(again)
    assert len({float(first), float(later), float(other)}) == 3


def test_a_fresh_average_shares_no_buffer_with_the_parameters_it_starts_from():
    state = place_state(fresh_state(use_batch_norm=True, use_ema=True), parallel.make_mesh())
    functions = make_functions(use_batch_norm=True)
    step = functools.partial(
        train_step,
        task=TASK,
        functions=functions,
        optimizer=OPTIMIZER,
        schedule=SCHEDULE,
        spec=SPEC,
    )
    batch = parallel.to_global(
        jax.device_get(draw_batch(0)),
        parallel.batch_sharding(parallel.make_mesh()),
        global_batch_size=ROWS,
    )
    after, _ = jax.jit(step, donate_argnums=0)(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert int(after.step) == 1
