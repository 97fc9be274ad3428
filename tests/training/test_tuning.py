"""Fine-tuning: what is frozen, what starts late, and each layer's share of the learning rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from lska_jax.models.build import array_shapes
from lska_jax.models.table import families, model_entry
from lska_jax.tasks.task import Task
from lska_jax.training.config import base_config
from lska_jax.training.config_check import check_config
from lska_jax.training.layers import choose_paths, layer_scales, places_of
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.schedules import cosine_schedule
from lska_jax.training.state import host_state
from lska_jax.training.step import StepSpec, train_step
from lska_jax.training.tuning import Tuning, tuning_of

RATE = 1e-2
CONSTANT = cosine_schedule(
    steps_per_epoch=1,
    epochs=10**6,
    warmup_epochs=0,
    learning_rate=RATE,
    min_learning_rate=RATE,
    warmup_learning_rate=RATE,
)


class TwoLayers(nnx.Module):
    """Two products and a BatchNorm."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x, rngs=None):
        return self.head(jax.nn.gelu(self.norm(self.first(x[:, 0, 0]))))


class Squares(Task):
    """A task whose loss is the mean square of the outputs' distance to the batch's targets."""

    open_split = train_reader = eval_reader = measure = means = None

    def prepare(self, batch, key):
        return (batch["x"], batch["y"]), key

    def loss(self, functions, params, stats, examples, key):
        outputs, stats = functions.train(params, stats, examples[0], key=key)
        return jnp.mean(jnp.square(outputs - examples[1])), stats


def run_steps(tuning: Tuning, *, steps: int = 3, clip_norm: float = 0.0, ema_decay: float = 0.0):
    """Return the state before and after some steps, each on a batch of its own."""
    from lska_jax.nn.functional import ModelFunctions

    model = TwoLayers(nnx.Rngs(0))
    optimizer = make_optimizer(weight_decay=0.05, clip_norm=clip_norm, tuning=tuning)
    functions = ModelFunctions(model, frozen_statistics=tuning.frozen_statistics)
    spec = StepSpec(tuning=tuning, ema_decay=ema_decay)
    state = before = host_state(model, optimizer, use_ema=ema_decay > 0)

    @jax.jit
    def step(state, batch):
        return train_step(
            state,
            batch,
            task=Squares(base_config()),
            functions=functions,
            optimizer=optimizer,
            schedule=CONSTANT,
            spec=spec,
        )

    rng = np.random.default_rng(0)
    gradient_norms = []
    for _ in range(steps):
        x, y = rng.normal(size=(8, 1, 1, 3)), rng.normal(size=(8, 2))
        batch = {"x": jnp.float32(x), "y": jnp.float32(y), "mask": jnp.ones(8, bool)}
        state, metrics = step(state, batch)
        gradient_norms.append(float(metrics["gradient_norm"]))
    return before, state, gradient_norms


def changed(before, after) -> set[str]:
    return {path for path, a in before.items() if not np.array_equal(a, after[path])}


def test_frozen_parameters_keep_every_bit_and_have_no_moments():
    frozen = frozenset({"first/kernel", "first/bias"})
    before, after, _ = run_steps(Tuning(frozen=frozen), ema_decay=0.9)
    assert changed(before.params, after.params) == set(before.params) - frozen
    assert changed(before.ema["params"], after.ema["params"]) == set(before.params) - frozen
    shapes = {array.shape for array in jax.tree.leaves(after.opt_state)}
    assert (3, 4) not in shapes


def test_others_train_as_if_frozen_parameters_were_constants():
    """What is clipped is the norm of what is trained."""
    everything, frozen = Tuning(), Tuning(frozen=frozenset({"first/kernel", "first/bias"}))
    _, _, whole = run_steps(everything, steps=1)
    _, _, part = run_steps(frozen, steps=1)
    assert part[0] < whole[0]
    _, clipped, _ = run_steps(frozen, steps=1, clip_norm=part[0] * 1.0001)
    _, unclipped, _ = run_steps(frozen, steps=1)
    for path, array in unclipped.params.items():
        np.testing.assert_array_equal(clipped.params[path], array)


def test_frozen_statistics_stay_and_are_what_training_normalises_with():
    statistics = frozenset({"norm/mean", "norm/var"})
    before, after, _ = run_steps(Tuning(frozen_statistics=statistics), ema_decay=0.9)
    assert changed(before.batch_stats, after.batch_stats) == set()
    assert changed(before.ema["batch_stats"], after.ema["batch_stats"]) == set()
    # Mean 0 and variance 1, those of a fresh norm: it passes its input on, times 1 / sqrt(1 + eps).
    _, moving, _ = run_steps(Tuning())
    assert changed(before.batch_stats, moving.batch_stats) == statistics
    assert changed(after.params, moving.params)


def test_a_scale_multiplies_the_whole_update():
    scales = {"first/kernel": 0.25, "head/bias": 3.0}
    before, plain, _ = run_steps(Tuning(), steps=1)
    _, scaled, _ = run_steps(Tuning(scales=scales), steps=1)
    for path, start in before.params.items():
        update = np.asarray(plain.params[path]) - np.asarray(start)
        # float32: the update is rounded once more where it is scaled.
        np.testing.assert_allclose(
            np.asarray(scaled.params[path]),
            np.asarray(start) + scales.get(path, 1.0) * update,
            rtol=0,
            atol=2e-7,
        )


def test_a_late_start_is_a_fresh_optimizers_first_step():
    starts = dict.fromkeys(("first/kernel", "first/bias", "norm/scale", "norm/bias"), 2)
    starts |= {"head/kernel": 0, "head/bias": 0}
    before, at_two, norms = run_steps(Tuning(starts=starts), steps=2)
    late = {path for path, start in starts.items() if start}
    assert changed(before.params, at_two.params) == {"head/kernel", "head/bias"}
    _, at_three, _ = run_steps(Tuning(starts=starts), steps=3)
    # AdamW's first step moves every parameter by the rate, whatever its gradient, and decays it.
    # The bias ahead of a BatchNorm has no gradient but rounding.
    for path in late - {"first/bias"}:
        start = np.asarray(at_two.params[path])
        decayed = 0.05 * start if start.ndim > 1 else 0.0
        moved = np.asarray(at_three.params[path]) - start + RATE * decayed
        np.testing.assert_allclose(np.abs(moved), RATE, rtol=1e-3)
    counts = {name: int(optax.tree.get(s, "count")) for name, s in at_three.opt_state.items()}
    assert counts == {"from_step_0": 3, "from_step_2": 1}


@pytest.mark.slow
def test_what_has_not_started_has_no_part_in_the_norm_that_is_clipped():
    late = {"first/kernel", "first/bias", "norm/scale", "norm/bias"}
    starts = {**dict.fromkeys(late, 9), "head/kernel": 0, "head/bias": 0}
    _, waiting, _ = run_steps(Tuning(starts=starts), clip_norm=0.05)
    _, frozen, _ = run_steps(Tuning(frozen=frozenset(late)), clip_norm=0.05)
    for path in ("head/kernel", "head/bias"):
        np.testing.assert_allclose(waiting.params[path], frozen.params[path], rtol=0, atol=1e-7)


# What timm 1.0.31's param_groups_layer_decay makes of these models: layers, and some of their
# parameters by our paths. timm has the last norm of ViT and Swin in the last block's layer; here it
# is in the head's, as in BEiT.
TIMM_LAYERS = {
    "vit_small_patch16_224": (14, {"positions": 0, "class_token": 0, "blocks/11/norm_1/scale": 12}),
    "convnext_tiny": (
        20,
        {"stem/norm/scale": 0, "transitions/0/norm/scale": 4, "transitions/2/norm/scale": 16},
    ),
    "swin_tiny_patch4_window7_224": (
        14,
        {"patch_embedding/norm/scale": 0, "stages/1/merging/norm/scale": 3},
    ),
    "inception_next_tiny": (20, {"stem/norm/scale": 0, "norm/scale": 19, "hidden/kernel": 19}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM_LAYERS)
def test_layers_are_those_of_timm(name):
    entry = model_entry(name)
    family = families()[entry.family]
    places = places_of(array_shapes(family.config(**entry.fields)), head=family.head)
    count, layers = TIMM_LAYERS[name]
    assert max(place.layer for place in places.values()) + 1 == count
    assert {path: places[path].layer for path in layers} == layers
    assert {places[path].layer for path in family.head if path in places} == {count - 1}


VAN_PATHS = (
    *("stages/0/patch_embedding/norm/scale", "stages/0/blocks/0/a", "stages/0/blocks/1/a"),
    *("stages/0/norm/scale", "stages/1/patch_embedding/norm/scale", "stages/1/blocks/0/a"),
    *("stages/1/norm/scale", "classifier/kernel", "classifier/bias"),
)
HEAD = VAN_PATHS[-2:]


def test_decay_multiplies_layer_by_layer_down_to_the_stem():
    places = places_of(VAN_PATHS, head=HEAD)
    assert [place.layer for place in places.values()] == [0, 1, 2, 2, 3, 3, 3, 4, 4]
    scales = layer_scales(places, decay=0.5)
    assert scales["classifier/kernel"] == 1.0
    assert scales["stages/0/patch_embedding/norm/scale"] == 0.5**4


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("head", HEAD),
        ("backbone", VAN_PATHS[:-2]),
        ("stem", VAN_PATHS[:1]),
        ("stage2", VAN_PATHS[4:7]),
        ("stages/0/blocks", VAN_PATHS[1:3]),
        ("*/norm/scale", (*VAN_PATHS[:1], *VAN_PATHS[3:5], VAN_PATHS[6])),
    ],
)
def test_patterns_name_parts_of_the_network(pattern, chosen):
    places = places_of(VAN_PATHS, head=HEAD)
    assert choose_paths([pattern], places, head=HEAD, key="training.freeze") == set(chosen)


def test_a_stage_without_blocks_is_one_layer():
    paths = ["stem/kernel", "stages/0/norm/scale", "stages/1/mix/kernel", "classifier/kernel"]
    places = places_of(paths, head=paths[-1:])
    assert [place.layer for place in places.values()] == [0, 1, 2, 3]
    assert [place.stage for place in places.values()] == [-1, 0, 1, 2]


def test_all_but_the_backbone_is_the_head_of_a_dense_network():
    backbone = [f"backbone/{path}" for path in VAN_PATHS[:-2]]
    heads = ["pyramid/laterals/0/kernel", "classifier/classes/kernel"]
    places = places_of([*backbone, *heads], head=heads[1:])
    assert [place.layer for place in places.values()] == [0, 1, 2, 2, 3, 3, 3, 4, 4]
    choose = functools.partial(choose_paths, places=places, head=heads[1:], key="training.freeze")
    assert choose(["head"]) == set(heads)
    assert choose(["backbone"]) == set(backbone)
    assert choose(["stage2"]) == set(backbone[4:7])


def test_a_pattern_that_names_nothing_is_refused_with_what_there_is():
    places = places_of(VAN_PATHS, head=HEAD)
    with pytest.raises(ValueError, match="'stage7' names nothing .* stage1 to stage2, .*stages/0"):
        choose_paths(["stage7"], places, head=HEAD, key="training.freeze")


def small_config(**settings) -> ConfigDict:
    config = base_config()
    config.model.update({"dims": (8, 8), "depths": (1, 1), "ffn_ratios": (2, 2), "num_classes": 3})
    for key, value in settings.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


def tuning(**settings) -> Tuning:
    from lska_jax.models.build import abstract_model, config_of

    config = small_config(**settings)
    check_config(config)
    return tuning_of(config, abstract_model(config_of(config.model.to_dict())), steps_per_epoch=10)


def test_a_run_trains_everything_alike_by_default():
    assert tuning() == Tuning()


def test_a_run_freezes_scales_and_unfreezes_as_its_config_says():
    frozen = tuning(training__freeze=("stem", "stage1"), training__freeze_statistics=("*",))
    assert {path.split("/")[1] for path in frozen.frozen} == {"0"}
    assert len(frozen.frozen_statistics) == 2 * 6
    scaled = tuning(optimizer__layer_decay=0.5, optimizer__head_learning_rate=4e-3)
    assert scaled.scales["classifier/bias"] == 4.0
    assert scaled.scales["stages/1/norm/scale"] == 0.5
    gradual = tuning(training__unfreeze_every_epochs=2).starts
    stages = {path.split("/")[1] if path[0] == "s" else "head": n for path, n in gradual.items()}
    assert stages == {"head": 0, "1": 20, "0": 40}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training__freeze": ("*",)}, "freezes every parameter"),
        ({"training__freeze": (3,)}, "must be texts"),
        ({"optimizer__layer_decay": 0.0}, "optimizer.layer_decay=0.0 must be above 0"),
        ({"training__patience": -1}, "training.patience=-1 must be at least 0"),
        (
            {"optimizer__learning_rate": 0.0, "optimizer__head_learning_rate": 1.0},
            "nothing else would be trained",
        ),
    ],
)
def test_settings_that_do_not_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tuning(**settings)
