"""Starting from the weights of another run: what may differ, and what may not."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from lska_jax.models.van import VAN
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer, CheckpointMismatch
from lska_jax.training.checkpoint.tree_difference import check_same_tree
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.model_places import evaluation_arrays
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.state import host_state

ROOT = Path(__file__).parents[2]
HEAD = ("classifier/kernel", "classifier/bias")


def tiny_config(*, num_classes: int = 10, seed: int = 0) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]("11")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
    config.model.num_classes = num_classes
    config.training.seed = seed
    return config


@functools.cache
def _built(**settings: int) -> VAN:
    return building.build_model(tiny_config(**settings))


def build(**settings: int) -> VAN:
    """Return a model of the test's own, copied from one that is built once."""
    return nnx.clone(_built(**settings))


def arrays_of(model: VAN) -> dict[str, np.ndarray]:
    return {path: np.array(x) for path, x in {**parameters(model), **batch_stats(model)}.items()}


@pytest.fixture(scope="module")
def averaged() -> dict[str, np.ndarray]:
    """Return the averages in the pretrained run: other numbers than its parameters."""
    generator = np.random.default_rng(0)
    return {
        path: array + np.abs(generator.normal(size=array.shape)).astype(np.float32)
        for path, array in arrays_of(build()).items()
    }


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, averaged) -> Path:
    """Return the folder of a run whose best step, 2, is not its latest."""
    workdir = tmp_path_factory.mktemp("pretrained")
    state = host_state(build(), make_optimizer(weight_decay=0.05), use_ema=True)
    groups = {name: list(getattr(state, name)) for name in ("params", "batch_stats")}
    best = {name: {path: jnp.asarray(averaged[path]) for path in groups[name]} for name in groups}
    with Checkpointer(workdir / "checkpoints", keep_latest=2, keep_best=1) as checkpointer:
        checkpointer.save(2, state._replace(ema=best), metadata={}, metric=0.9)
        checkpointer.save(4, state, metadata={}, metric=0.5)
    return workdir


@pytest.fixture(scope="module")
def without_averages(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("without_averages")
    state = host_state(build(seed=3), make_optimizer(weight_decay=0.05), use_ema=False)
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(1, state, metadata={}, metric=0.1)
    return workdir


def test_with_the_same_classes_everything_comes_from_the_best_steps_averages(pretrained, averaged):
    model = build(seed=1)
    message = load_for_finetuning(model, pretrained)
    assert arrays_of(model).keys() == averaged.keys()
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, averaged[path], err_msg=path)
    assert f"{pretrained / 'checkpoints' / '2'}, {len(averaged)} arrays, head included" in message


def test_without_averages_the_parameters_themselves_are_taken(without_averages):
    model = build(seed=1)
    load_for_finetuning(model, without_averages)
    expected = arrays_of(build(seed=3))
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


@pytest.mark.parametrize("num_classes", [3, 20])
def test_with_other_classes_the_head_stays_fresh_and_the_message_says_so(
    pretrained, averaged, num_classes
):
    model = build(num_classes=num_classes, seed=1)
    fresh = arrays_of(model)
    message = load_for_finetuning(model, pretrained)
    for path, array in arrays_of(model).items():
        expected = fresh if path in HEAD else averaged
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    assert f"{len(averaged) - 2} arrays, with a fresh head for other classes" in message


def test_another_image_size_needs_nothing_but_the_same_weights(pretrained):
    """The start for 12-pixel images computes what the pretrained weights compute on them."""
    first, second = build(seed=1), build(seed=2)
    load_for_finetuning(first, pretrained)
    load_for_finetuning(second, pretrained)
    evaluate = jax.jit(ModelFunctions(first).evaluate)
    for size in (8, 12):
        images = jnp.linspace(-1, 1, size * size).reshape(1, size, size, 1)
        logits = [
            evaluate(parameters(model), batch_stats(model), images) for model in (first, second)
        ]
        assert logits[0].shape == (1, 10)
        np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("given", ["run", "checkpoints", "step"])
def test_a_run_its_checkpoints_or_one_step_can_be_named(pretrained, averaged, given):
    path = {
        "run": pretrained,
        "checkpoints": pretrained / "checkpoints",
        "step": pretrained / "checkpoints" / "2",
    }[given]
    model = build(seed=1)
    load_for_finetuning(model, path)
    kernel = "stages/0/patch_embedding/projection/kernel"
    np.testing.assert_array_equal(parameters(model)[kernel], averaged[kernel])


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        (
            {"k": 23},
            [
                f"stages/0/blocks/0/attention/gate/depthwise/{number}/kernel: "
                f"checkpoint has {had}, model wants {wanted}"
                for number, had, wanted in (
                    (0, "(1, 3, 1, 8)", "(1, 5, 1, 8)"),
                    (1, "(3, 1, 1, 8)", "(5, 1, 1, 8)"),
                    (2, "(1, 5, 1, 8)", "(1, 7, 1, 8)"),
                    (3, "(5, 1, 1, 8)", "(7, 1, 1, 8)"),
                )
            ],
        ),
        (
            {"in_channels": 3, "num_classes": 3},
            [
                "stages/0/patch_embedding/projection/kernel: checkpoint has (7, 7, 1, 8), "
                "model wants (7, 7, 3, 8)"
            ],
        ),
        (
            {"depths": (2,)},
            [
                "stages/0/blocks/1/scale_1/scale: missing from the checkpoint",
                "stages/0/blocks/1/norm_2/mean: missing from the checkpoint",
            ],
        ),
        (
            {"dims": (16,), "num_classes": 3},
            ["classifier/kernel: checkpoint has (8, 10), model wants (16, 3)"],
        ),
        (
            {"name": "van_lka_tiny"},
            ["stages/0/blocks/0/attention/gate/depthwise/3/kernel: checkpoint has (5, 1, 1, 8)"],
        ),
    ],
    ids=lambda case: str(case) if isinstance(case, dict) else "",
)
def test_any_other_difference_is_refused_with_every_name(pretrained, changes, different):
    config = tiny_config(seed=1)
    config.model.update(changes)
    model = building.build_model(config)
    before = arrays_of(model)
    with pytest.raises(CheckpointMismatch) as caught:
        load_for_finetuning(model, pretrained)
    message = str(caught.value)
    assert "nothing was loaded" in message
    for line in different:
        assert line in message
    count = len(message.splitlines()) - 1
    assert f"{count} differences" in message
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_for_finetuning(build(), tmp_path)


def test_another_data_type_is_a_difference():
    single, half = np.zeros(3, np.float32), np.zeros(3, np.float16)
    with pytest.raises(
        CheckpointMismatch, match="bias: checkpoint has float16, model wants float32"
    ):
        check_same_tree({"bias": half}, {"bias": single}, where="here")


def test_averages_are_what_is_evaluated_where_there_are_any():
    tree = {"params": {"w": 1}, "batch_stats": {"m": 2}, "ema": {}}
    assert evaluation_arrays(tree) == {"w": 1, "m": 2}
    tree["ema"] = {"params": {"w": 3}, "batch_stats": {"m": 4}}
    assert evaluation_arrays(tree) == {"w": 3, "m": 4}


def test_fine_tuning_starts_a_run_with_the_loaded_values(pretrained, averaged):
    """What a run starts from: parameters, statistics and averages, with a fresh optimizer."""
    model = build(seed=1)
    load_for_finetuning(model, pretrained)
    state = host_state(model, make_optimizer(weight_decay=0.05), use_ema=True)
    for arrays in (state.params, state.batch_stats, *state.ema.values()):
        for path, array in arrays.items():
            np.testing.assert_array_equal(array, averaged[path], err_msg=path)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert not any(np.any(moment) for moment in moments)


NAMES = tuple(f"class {number}" for number in range(10))


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """Return the folder of a run that knows its classes."""
    workdir = tmp_path_factory.mktemp("named")
    state = host_state(build(seed=3), make_optimizer(weight_decay=0.05), use_ema=False)
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(1, state, metadata={"class_names": [*NAMES]}, metric=0.1)
    return workdir


def head_after(named: Path, class_names: tuple[str, ...]) -> tuple[np.ndarray, str]:
    model = build(seed=1)
    message = load_for_finetuning(model, named, class_names=class_names)
    return arrays_of(model)[HEAD[0]], message


def test_a_head_of_the_same_classes_is_kept(named):
    head, message = head_after(named, NAMES)
    np.testing.assert_array_equal(head, arrays_of(build(seed=3))[HEAD[0]])
    assert message.endswith("head included.")


def test_a_head_of_the_same_classes_in_another_order_is_mapped(named):
    head, message = head_after(named, NAMES[::-1])
    np.testing.assert_array_equal(head, arrays_of(build(seed=3))[HEAD[0]][:, ::-1])
    assert "mapped to the data's order" in message


def test_a_head_of_as_many_other_classes_stays_fresh_and_both_lists_are_said(named):
    head, message = head_after(named, (*NAMES[1:], "zebra"))
    np.testing.assert_array_equal(head, arrays_of(build(seed=1))[HEAD[0]])
    assert "only in the data: zebra; only in the start: class 0" in message


def test_a_head_whose_classes_nobody_knows_is_kept_and_that_is_said(without_averages):
    head, message = head_after(without_averages, NAMES)
    np.testing.assert_array_equal(head, arrays_of(build(seed=3))[HEAD[0]])
    assert "by position: the weights do not name them" in message
