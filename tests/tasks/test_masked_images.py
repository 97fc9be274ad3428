"""Painting masked patches: what is masked, what a network sees of it, and how it is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config
from toy_family import FAMILY

from lska_jax.data.digits import DigitsSource
from lska_jax.models.table import families
from lska_jax.nn.functional import ModelFunctions
from lska_jax.tasks.masked_images import (
    MaskedImages,
    errors_of,
    masked_pixels,
    pixels_of,
    predicted_values,
)
from lska_jax.training.config import model_section
from lska_jax.training.config_check import check_config
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.loop import train
from lska_jax.training.masked_recipe import use_masked_images
from lska_jax.training.model_places import read_model
from lska_jax.training.publish import publish
from lska_jax.training.run import build_model
from lska_jax.weights.create import create_model


def masked_config():
    config = small_config()
    config.model = model_section(f"{FAMILY.name}_small", num_classes=10, in_channels=1)
    use_masked_images(config, patch_size=4)
    config.data.image_size = 8
    check_config(config)
    return config


class Recorder(ModelFunctions):
    """A network that notes what it is shown, and paints one value everywhere."""

    def __init__(self, value: float):  # no parent's: there is no model
        self.value = value

    def train(self, params, stats, images, *, key, method):
        return self.evaluate(params, stats, images, method=method), stats

    def evaluate(self, params, stats, images, *, method):
        assert method == "local_logits"
        self.seen = images
        return jnp.full((len(images), 4, 4, 4), self.value)


def batch_of(pixels: np.ndarray, *, mask=None) -> dict:
    mask = np.ones(len(pixels), bool) if mask is None else mask
    return {"image": jnp.asarray(pixels), "mask": jnp.asarray(mask)}


def test_a_fixed_part_of_the_patches_is_masked_rounded_up_and_those_are_whole():
    scores = np.random.default_rng(0).random((3, 25), np.float32)
    masked = np.asarray(masked_pixels.__wrapped__(jnp.asarray(scores), patch_size=2, ratio=0.61))
    assert masked.shape == (3, 10, 10)
    patches = masked.reshape(3, 5, 2, 5, 2).transpose(0, 1, 3, 2, 4).reshape(3, 25, 4)
    assert np.array_equal(patches.all(axis=2), patches.any(axis=2))
    for row, chosen in zip(scores, patches.any(axis=2), strict=True):
        assert set(np.flatnonzero(chosen)) == set(np.argsort(row)[:16])


def test_what_is_predicted_at_a_place_is_its_part_of_the_image():
    values = np.arange(2 * 2 * 3 * 12, dtype=np.float32).reshape(2, 2, 3, 12)
    image = np.asarray(pixels_of.__wrapped__(jnp.asarray(values), side=2))
    assert image.shape == (2, 4, 6, 3)
    for row, column in np.ndindex(2, 3):
        place = image[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(place, values[1, row, column].reshape(2, 2, 3))


def test_the_error_is_the_mean_difference_over_masked_pixels_alone():
    rng = np.random.default_rng(1)
    painted, images = rng.standard_normal((2, 2, 4, 4, 3)).astype(np.float32)
    masked = rng.random((2, 4, 4)) < 0.5
    expected = [np.abs(a - b)[m].mean() for a, b, m in zip(painted, images, masked, strict=True)]
    found = errors_of.__wrapped__(*map(jnp.asarray, (painted, images, masked)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_network_sees_the_mean_colour_in_place_of_masked_pixels_and_is_judged_by_them():
    task, network = MaskedImages(masked_config()), Recorder(0.5)
    pixels = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    batch = batch_of(pixels, mask=np.array([True, True, False, True]))
    examples, key = task.prepare(batch, jax.random.key(3))
    loss, _ = task.loss(network, {}, {}, examples, key)
    masked, images = np.asarray(examples["masked"]), np.asarray(examples["image"])
    assert masked.sum(axis=(1, 2)).tolist() == [48] * 4  # three of four patches of 4 x 4
    np.testing.assert_array_equal(np.asarray(network.seen)[masked], 0)
    np.testing.assert_array_equal(np.asarray(network.seen)[~masked], images[~masked])
    each = [np.abs(0.5 - image[mask]).mean() for image, mask in zip(images, masked, strict=True)]
    assert float(loss) == pytest.approx(np.mean([each[0], each[1], each[3]]), rel=1e-5)


def test_an_image_is_judged_alike_in_any_batch(tmp_path):
    task, network = MaskedImages(masked_config()), Recorder(0.0)
    pixels = np.random.default_rng(4).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    together = task.means(task.measure(network, {}, {}, batch_of(pixels)))
    total = None
    for row in (2, 0, 1):
        part = jax.device_get(task.measure(network, {}, {}, batch_of(pixels[row : row + 1])))
        total = part if total is None else task.add(total, part)
    assert task.means(total)["error"] == pytest.approx(together["error"], rel=1e-6)
    (sheet,) = task.keep_predictions(total, DigitsSource("test"), tmp_path).values()
    assert sheet.shape == (8, 24, 3)


def test_what_does_not_fit_is_said():
    config = masked_config()
    config.model.num_classes = 9
    with pytest.raises(ValueError, match=r"pass --config.model.num_classes=4"):
        MaskedImages(config)
    config.model.num_classes = 10
    config.masked_images.patch_size = 3
    config.data.multi_label = True
    with pytest.raises(ValueError, match=r"square of the network's stride") as error:
        check_config(config)
    assert "must divide data.image_size=8 into patches; allowed: 2, 4, or 0" in str(error.value)
    assert "data.multi_label=True is about labels; set False" in str(error.value)


@pytest.mark.slow
def test_a_place_of_the_last_map_of_every_family_stands_for_the_square_of_its_stride():
    for family in families().values():
        name = next(iter(family.models))
        size = 32 if family.name == "toy" else 224
        count = predicted_values(model_section(name).to_dict(), image_size=size)
        side = round((count / 3) ** 0.5)
        assert count == 3 * side**2 and size % side == 0, name


@pytest.mark.slow
def test_each_place_of_a_transformer_has_the_logits_of_its_patch():
    model = create_model(
        "deit_tiny_patch16_224", dim=12, depth=1, heads=3, num_classes=5, position_grid=2
    )
    images = np.random.default_rng(5).standard_normal((2, 32, 32, 3)).astype(np.float32)
    tokens = model.features(images)[-1]
    assert model.local_logits(images).shape == (2, 2, 2, 5)
    np.testing.assert_allclose(
        model.local_logits(images)[:, 1, 0], model.classifier(tokens[:, 3]), rtol=1e-5
    )


@pytest.mark.slow
def test_a_run_learns_to_paint_and_a_classifier_starts_from_it_with_a_fresh_head(tmp_path):
    config = masked_config()
    config.optimizer.epochs = 4
    evaluation = train(config, workdir=tmp_path / "painted")
    lines = (tmp_path / "painted" / "metrics.jsonl").read_text()
    assert evaluation["eval/error"] < 0.9 and '"eval/error"' in lines
    publish(tmp_path / "painted", tmp_path / "model", report=lambda line: None)
    facts, arrays = read_model(tmp_path / "model")
    assert facts.config.num_classes == 0 and "classifier/kernel" not in arrays
    classifier = small_config()
    # As many outputs as values are painted: the size alone does not tell them apart.
    fields = {"num_classes": 4, "in_channels": 1}
    classifier.model = model_section(f"{FAMILY.name}_small", **fields)
    for place in ("painted", "model"):
        model = build_model(classifier)
        before = np.asarray(model.classifier.kernel[...])
        said = load_for_finetuning(model, tmp_path / place, class_names=tuple("abcd"))
        assert "with a fresh head" in said
        np.testing.assert_array_equal(model.classifier.kernel[...], before)
        np.testing.assert_array_equal(model.stem.kernel[...], arrays["stem/kernel"])
