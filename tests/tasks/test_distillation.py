"""Learning from a teacher: the two losses by their definitions, and whose classes are whose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_family
from flax import nnx

from lska_jax import create_model
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.tasks.classification import Classification
from lska_jax.tasks.distillation import make_teacher, teacher_losses
from lska_jax.training.config import base_config, model_section
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.pretrained import arrays_of

STUDENT = np.float32([[1.5, -0.5, 0.25], [-2.0, 3.0, 0.5]])
TEACHER = np.float32([[0.5, 2.0, -1.0], [0.1, 0.2, 0.4]])


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_answers_cost_the_divergence_times_the_temperature_squared(temperature):
    p, q = (softmax(np.float64(x) / temperature) for x in (TEACHER, STUDENT))
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=1)
    losses = teacher_losses(
        jnp.asarray(STUDENT), jnp.asarray(TEACHER), kind="soft", temperature=temperature
    )
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


@pytest.mark.slow
def test_at_high_temperature_gradients_are_those_of_matching_logits():
    """Hinton and others, equation 4: (z_i - v_i) / N of logits of mean zero, times T^2 / T^2."""
    student, teacher = (jnp.asarray(x - x.mean(axis=1, keepdims=True)) for x in (STUDENT, TEACHER))
    gradient = jax.grad(lambda x: teacher_losses(x, teacher, kind="soft", temperature=1e3).sum())(
        student
    )
    # The next term of the expansion is smaller by the logits over the temperature.
    np.testing.assert_allclose(gradient, (student - teacher) / 3, atol=2e-3)


def test_hard_answers_cost_the_cross_entropy_of_the_teachers_class():
    losses = teacher_losses(
        jnp.asarray(STUDENT), jnp.asarray(TEACHER), kind="hard", temperature=1.0
    )
    expected = -np.log(softmax(np.float64(STUDENT))[[0, 1], [1, 2]])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def teacher_of(names, *, class_names=("a", "b", "c"), **changed):
    model = toy_family.Toy(toy_family.ToyConfig(num_classes=3), rngs=nnx.Rngs(0))
    prepared = toy_family.FAMILY.preprocessing._replace(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2))
    facts = ModelFacts(config=model.config, preprocessing=prepared, class_names=names)
    asked = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "num_classes": 3, "place": "T", **changed}
    return model, make_teacher(facts, arrays_of(model), class_names=class_names, **asked)


@pytest.mark.slow
def test_a_teacher_sees_its_own_normalisation_and_answers_in_the_students_order():
    model, teacher = teacher_of(("c", "a", "b"))
    pixels = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    own = (pixels - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 0.4, 0.2])
    model.eval()
    expected = np.asarray(nnx.jit(lambda m, x: m(x))(model, jnp.asarray(own)))[:, [1, 2, 0]]
    arrays = jax.tree.map(jnp.asarray, teacher.arrays)
    logits = jax.jit(teacher.logits)(jnp.asarray((pixels - 0.5) / 0.25, jnp.float32), arrays)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_other_classes_or_channels_is_refused():
    with pytest.raises(ValueError, match="T has other classes: .*only in the teacher: d"):
        teacher_of(("a", "b", "d"))
    with pytest.raises(ValueError, match="has 3 classes, the student 5"):
        teacher_of(None, num_classes=5)
    with pytest.raises(ValueError, match="takes 3 channels, the student 1"):
        teacher_of(None, mean=(0.5,), std=(0.5,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_distillation_token_learns_from_the_teacher_and_the_class_token_from_labels(kind):
    config = base_config()
    config.model = model_section(
        "deit_tiny_distilled_patch16_224", dim=6, heads=2, depth=1, num_classes=3
    )
    config.training.update({"distillation": kind, "distillation_weight": 0.25})
    task = Classification(config)
    model = create_model("deit_tiny_distilled_patch16_224", dim=6, heads=2, depth=1, num_classes=3)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 32, 32, 3)), jnp.float32)
    targets, weights = jnp.eye(3)[jnp.array([0, 2])], jnp.float32([0.5, 0.5])
    arrays = parameters(model), batch_stats(model)

    def loss(*told):
        examples = (images, targets, weights, *told)
        return task.loss(ModelFunctions(model), *arrays, examples, jax.random.key(0))[0]

    def parts():
        of_labels, of_teacher = model.logits_of_each(images)
        taught = teacher_losses(of_teacher, jnp.asarray(TEACHER), kind=kind, temperature=2.0)
        labels = -jnp.sum(targets * jax.nn.log_softmax(of_labels), axis=1)
        return jnp.mean(0.75 * labels + 0.25 * taught), model(images)

    expected, logits = jax.jit(parts)()
    np.testing.assert_allclose(jax.jit(loss)(jnp.asarray(TEACHER)), expected, rtol=1e-5)
    # Without a teacher it is the mean of both that learns.
    alone = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)
    np.testing.assert_allclose(jax.jit(loss)(), jnp.mean(alone), rtol=1e-5)


@pytest.mark.slow
def test_a_student_learns_from_a_run_alone_and_resumes_exactly(tmp_path, monkeypatch):
    """With a weight of 1 the labels count nothing: what is learned is the teacher's."""
    import json

    from small_runs import STEPS, small_config

    from lska_jax.training.checkpoint.load_tree import load_tree
    from lska_jax.training.config_check import check_config
    from lska_jax.training.loop import train
    from lska_jax.training.trainer import Interrupted, Trainer

    train(small_config(), workdir=tmp_path / "teacher")
    config = small_config()
    config.training.update({"teacher": str(tmp_path / "teacher"), "distillation_weight": 1.0})
    config.training.seed = 1
    check_config(config)
    whole = train(config, workdir=tmp_path / "whole")
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    losses = [x["train/loss"] for x in map(json.loads, lines) if "train/loss" in x]
    # The labels' part is 2.3 at the beginning.
    assert losses[-1] < losses[0] < 0.1
    save = Trainer._save

    def save_and_stop(self, step, *arguments, **options):
        save(self, step, *arguments, **options)
        if step == STEPS // 3:
            raise Interrupted("here")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", save_and_stop)
        with pytest.raises(Interrupted):
            train(config, workdir=tmp_path / "parts")
    assert train(config, workdir=tmp_path / "parts") == whole
    one, other = (load_tree(tmp_path / name, step="latest") for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, one.tree, other.tree)
