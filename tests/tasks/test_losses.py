"""Losses, class weights, balanced draws and average precision, each by its definition."""

import csv
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lska_jax.data.class_counts import BalancedDraw, count_classes
from lska_jax.data.examples import Field
from lska_jax.data.loader import train_batches
from lska_jax.data.sources import Record
from lska_jax.tasks.average_precision import average_precision, mean_average_precision
from lska_jax.tasks.class_order import RelabelledSource
from lska_jax.tasks.classification_check import given_weights
from lska_jax.tasks.losses import (
    balanced_positive_weights,
    balanced_weights,
    sigmoid_losses,
    softmax_losses,
)

LOGITS = jnp.float32([[1.5, -0.5, 0.25], [-2.0, 3.0, 0.5]])
SOFT = jnp.float32([[0.7, 0.2, 0.1], [0.0, 0.1, 0.9]])
SEVERAL = jnp.float32([[1, 0, 1], [0, 0, 1]])
WEIGHTS = np.float32([0.5, 2.0, 1.25])
# torch 2.13.0: cross_entropy with weight, binary_cross_entropy_with_logits with pos_weight, and
# torchvision's sigmoid_focal_loss(alpha=-1, gamma=2), each the mean over classes.
WEIGHTED = [1.2642080783843994, 2.9252538681030273]
BINARY = [0.43156930804252625, 1.2560372352600098]
FOCAL = [0.0615592785179615, 0.9452192783355713]
# float32 of two libraries.
RTOL = 2e-6


def test_weighted_cross_entropy_is_pytorchs():
    losses = softmax_losses(LOGITS, SOFT, class_weights=WEIGHTS)
    np.testing.assert_allclose(losses, WEIGHTED, rtol=RTOL)


def test_binary_losses_are_pytorchs():
    weighted = sigmoid_losses(LOGITS, SEVERAL, positive_weights=WEIGHTS)
    np.testing.assert_allclose(weighted, BINARY, rtol=RTOL)
    np.testing.assert_allclose(sigmoid_losses(LOGITS, SEVERAL, gamma=2.0), FOCAL, rtol=RTOL)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_equation_4_of_its_paper(gamma):
    logits = np.asarray(LOGITS, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -(np.asarray(SOFT) * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(softmax_losses(LOGITS, SOFT, gamma=gamma), expected, rtol=RTOL)


def test_focal_losses_of_what_is_certain_have_finite_gradients():
    certain = jnp.float32([[60.0, -60.0]])
    for loss in (softmax_losses, sigmoid_losses):
        gradient = jax.grad(lambda x, f=loss: f(x, jnp.float32([[1, 0]]), gamma=0.5).sum())(certain)
        assert np.isfinite(gradient).all()


def test_balanced_weights_make_classes_weigh_alike():
    counts = np.array([90.0, 9.0, 1.0])
    weights = balanced_weights(counts)
    np.testing.assert_allclose(weights * counts, 100 / 3, rtol=1e-6)
    np.testing.assert_allclose(balanced_positive_weights(counts, 100) * counts, [10, 91, 99])


def test_listed_weights_are_read():
    assert given_weights("0.5,2, 1") == (0.5, 2.0, 1.0)
    assert given_weights("balanced") is None


class Numbers:
    """A source of labels: 40 of class 0, 8 of class 1, 2 of class 3, none of class 2."""

    name = "numbers"
    class_names = ("a", "b", "c", "d")
    labels = np.repeat([0, 1, 3], [40, 8, 2]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        return Record(b"", int(self.labels[index]))

    def path(self, index: int) -> str:
        return f"number {index}"


class Reader:
    fields = {"label": Field((), np.int32)}

    def __call__(self, example, *rng):
        return {"label": example.label}


def labels_drawn(start: int = 0, rows=None) -> list[list[int]]:
    batches = train_batches(
        Numbers(),
        Reader(),
        global_batch_size=30,
        seed=3,
        rows=rows,
        start_step=start,
        stop_step=40,
        draw=BalancedDraw.of(Numbers()),
    )
    return [batch["label"].tolist() for batch in batches]


def test_a_draw_takes_every_class_as_often():
    draw, rng = BalancedDraw.of(Numbers()), np.random.default_rng(0)
    labels = Numbers.labels[[draw(rng) for _ in range(1_200)]]
    # Five standard deviations are 82.
    assert np.all(np.abs(np.bincount(labels)[[0, 1, 3]] - 400) < 82)


@pytest.mark.slow
def test_a_balanced_draw_gives_every_class_its_share_and_resumes_exactly():
    drawn = labels_drawn()
    counts = np.bincount(list(itertools.chain(*drawn)), minlength=4)
    # 1,200 draws of three classes: five standard deviations are 82.
    assert np.all(np.abs(counts[[0, 1, 3]] - 400) < 82)
    assert counts[2] == 0
    assert labels_drawn(37) == drawn[37:]
    assert [batch[10:20] for batch in drawn[37:]] == labels_drawn(37, rows=range(10, 20))


def test_classes_are_counted_in_the_order_of_the_model():
    assert count_classes(Numbers()).tolist() == [40, 8, 0, 2]
    moved = RelabelledSource(Numbers(), [3, 2, 1, 0], ("d", "c", "b", "a"))
    assert count_classes(moved).tolist() == [2, 0, 8, 40]


def test_columns_of_several_labels_are_mapped_with_their_classes():
    class Several(Numbers):
        labels = np.array([[1, 0, 0, 1], [0, 1, 0, 0]])

        def __getitem__(self, index):
            return Record(b"", self.labels[index])

    moved = RelabelledSource(Several(), [1, 2, 3, 0], ("d", "a", "b", "c"))
    assert moved[0].label.tolist() == [1, 1, 0, 0]
    assert moved.labels.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]


def test_average_precision_is_the_area_in_steps_of_recall():
    scores = np.float32([0.9, 0.8, 0.7, 0.6])
    has_it = np.array([True, False, True, False])
    assert average_precision(scores, has_it) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Equal scores are one threshold: both are ahead of it or behind it.
    assert average_precision(np.float32([0.5, 0.5]), np.array([True, False])) == 0.5
    assert average_precision(scores, np.zeros(4, bool)) is None
    with pytest.raises(ValueError, match="No example of the evaluation has any label"):
        mean_average_precision(scores[:, None], np.zeros((4, 1), bool))


@pytest.mark.slow
def test_average_precision_is_scikit_learns():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = np.round(rng.normal(size=40), 1).astype(np.float32)
        has_it = rng.random(40) < 0.3
        has_it[0] = True
        assert average_precision(scores, has_it) == pytest.approx(
            average_precision_score(has_it, scores), abs=1e-12
        )


@pytest.mark.slow
def test_several_labels_are_trained_published_and_predicted(tmp_path):
    """Bright halves of an image: any, none or both of two."""
    import toy_family

    from lska_jax.tasks.predict import predict
    from lska_jax.training.config import model_section
    from lska_jax.training.config_check import check_config, check_sources
    from lska_jax.training.loop import train
    from lska_jax.training.own_photos import Wishes, config_for_images
    from lska_jax.training.publish import publish

    assert toy_family.FAMILY
    rng = np.random.default_rng(0)
    with (tmp_path / "list.csv").open("w") as file:
        writer = csv.writer(file)
        for n in range(200):
            left, right = rng.random(2) < 0.5
            pixels = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
            pixels[:8] += np.uint8(150 * left)
            pixels[8:] += np.uint8(90 * right)
            Image.fromarray(pixels).save(tmp_path / f"{n}.png")
            names = [name for name, is_on in (("top", left), ("low", right)) if is_on]
            writer.writerow([f"{n}.png", "|".join(names)])
    config = config_for_images(Wishes("digits", "toy_small", epochs=30)).config.unlock()
    config.model = model_section("toy_small", num_classes=2)
    config.data.update({"source": f"csv:{tmp_path}/list.csv", "multi_label": True})
    config.data.update({"train_split": "all[:80%]", "eval_split": "all[80%:]", "image_size": 16})
    config.data.update({"mean": (0.5,) * 3, "std": (0.5,) * 3, "hflip_prob": 0.0, "pad": 0})
    config.training.update({"class_weights": "balanced", "batch_size": 16, "eval_batch_size": 16})
    config.optimizer.learning_rate = 3e-2
    check_config(config)
    check_sources(config, is_training=True)
    result = train(config, workdir=tmp_path / "run")
    assert result["eval/mean_average_precision"] > 0.75
    facts = publish(tmp_path / "run", tmp_path / "model", report=lambda text: None)
    assert facts.is_multi_label
    (prediction,) = predict(tmp_path / "model", [tmp_path / "0.png"])
    assert sum(score.probability for score in prediction.scores) != pytest.approx(1, abs=1e-3)
