"""Test-time augmentation: which views there are, and what their mean is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.data.augment import EvalTransform
from lska_jax.tasks.views import average_views


def left_and_right(images: jax.Array) -> jax.Array:
    """Return the brightness of the left column and of the right one as logits."""
    return jnp.stack([images[:, :, 0].mean((1, 2)), images[:, :, -1].mean((1, 2))], axis=1)


IMAGES = jnp.float32([[[[2.0], [0.0], [-1.0]]], [[[0.5], [9.0], [0.5]]]])


def views_of(images: jax.Array, **options) -> np.ndarray:
    # The views are pixels; numbers near one are easier to follow.
    return np.asarray(average_views.__wrapped__(left_and_right, images, **options))


def test_one_view_is_the_models_own_answer():
    np.testing.assert_array_equal(views_of(IMAGES, views="one"), left_and_right(IMAGES))


def test_an_image_and_its_mirror_image_share_their_probabilities():
    probabilities = jax.nn.softmax(views_of(IMAGES, views="flip"))
    np.testing.assert_allclose(probabilities, np.full((2, 2), 0.5), rtol=1e-6)


def test_ten_crops_are_the_mean_over_all_of_them():
    crops = jnp.stack([IMAGES + n for n in range(5)], axis=1)
    single = [jax.nn.softmax(left_and_right(x)) for n in range(5) for x in (crops[:, n],)]
    mirrored = [p[:, ::-1] for p in single]
    expected = np.mean([*single, *mirrored], axis=0)
    probabilities = jax.nn.softmax(views_of(crops, views="ten"))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_of_several_labels_the_mean_is_of_each_sigmoid():
    logits = views_of(IMAGES, views="flip", is_multi_label=True)
    both = [jax.nn.sigmoid(x) for x in (left_and_right(IMAGES), left_and_right(IMAGES)[:, ::-1])]
    np.testing.assert_allclose(jax.nn.sigmoid(logits), np.mean(both, axis=0), rtol=1e-5)


def test_five_crops_are_the_corners_and_the_centre():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    crops = EvalTransform(image_size=8, channels=1, crop_pct=0.8, has_five_crops=True)(pixels)
    starts = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    for crop, (y, x) in zip(crops, starts, strict=True):
        np.testing.assert_array_equal(crop, pixels[y : y + 8, x : x + 8])
    centre = EvalTransform(image_size=8, channels=1, crop_pct=0.8)(pixels)
    np.testing.assert_array_equal(crops[4], centre)


@pytest.mark.slow
@pytest.mark.parametrize("views", ["flip", "ten"])
def test_predictions_and_evaluation_take_views(views, tmp_path):
    """A run evaluated over views has the accuracy that its predictions over views have."""
    from PIL import Image
    from small_runs import small_config

    from lska_jax.data.opening import open_source
    from lska_jax.tasks.predict import predict
    from lska_jax.training.config_check import check_config
    from lska_jax.training.evaluate_only import evaluate_checkpoint
    from lska_jax.training.loop import train
    from lska_jax.training.publish import publish

    config = small_config()
    config.data.crop_pct = 0.8
    train(config, workdir=tmp_path / "run")
    config.data.views = views
    check_config(config)
    result = evaluate_checkpoint(config, workdir=tmp_path / "e", checkpoint=tmp_path / "run")
    publish(tmp_path / "run", tmp_path / "model", report=lambda text: None)
    source = open_source("digits", split="test")
    for n in range(len(source)):
        Image.fromarray(source[n].image[..., 0]).save(tmp_path / f"{n:03}.png")
    images = [tmp_path / f"{n:03}.png" for n in range(len(source))]
    given = list(predict(tmp_path / "model", images, views=views, top=1))
    right = sum(p.scores[0].label == source[n].label for n, p in enumerate(given))
    assert right / len(source) == pytest.approx(result["eval/top1"], abs=0.003)
