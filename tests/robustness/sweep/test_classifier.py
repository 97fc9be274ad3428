"""Models as the sweep sees them: folders, runs and functions of others."""

import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import CLASSES, small_model, small_state_dict, write_safetensors

from lska_jax.models.table import Preprocessing
from lska_jax.robustness.sweep.classifier import (
    as_classifiers,
    hash_arrays,
    load_classifier,
    wrap_function,
)
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.publish import publish
from lska_jax.training.run import build_model
from lska_jax.training.state import host_state
from lska_jax.weights import ModelFacts, load_state_dict, write_model_folder
from lska_jax.weights.class_names import imagenet_names, imagenet_wnids
from lska_jax.weights.import_torch import import_checkpoint
from lska_jax.weights.pretrained import arrays_of

ROOT = Path(__file__).parents[3]
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
PREPARED = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), image_size=32, crop_pct=0.8)


def write(folder, *, class_names=NAMES, prepared=PREPARED, **config):
    model = small_model(k=7, **config)
    if not config:
        load_state_dict(model, small_state_dict(k=7))
    facts = ModelFacts(config=model.config, preprocessing=prepared, class_names=class_names)
    return write_model_folder(folder, facts, arrays_of(model)), model


def test_a_model_folder_gives_its_models_logits(tmp_path):
    folder, model = write(tmp_path / "small")
    classifier = load_classifier(folder)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    model.eval()
    # BatchNorm is folded: the same function, other rounding.
    ours = jax.jit(classifier.logits)(classifier.variables, images)
    expected = nnx.jit(lambda module, batch: module(batch))(model, images)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert classifier.stamp.name == "small"
    assert classifier.stamp.facts["k"] == 7 and classifier.stamp.facts["attention"] == "lska"
    assert classifier.stamp.preprocessing == (
        "short side 40 bicubic, crop 32, mean (0.4, 0.5, 0.6), std (0.2, 0.3, 0.4)"
    )
    assert (classifier.class_names, classifier.num_classes) == (NAMES, CLASSES)


def test_a_run_and_the_folder_published_from_it_are_one_model(tmp_path):
    config = runpy.run_path(str(ROOT / "configs" / "cifar10.py"))["get_config"]("7")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
    state = host_state(build_model(config), make_optimizer(weight_decay=0.05), use_ema=True)
    with Checkpointer(tmp_path / "run" / "checkpoints") as checkpointer:
        checkpointer.save(2, state, metadata={"config": config.to_dict()}, metric=0.5)
    publish(tmp_path / "run", tmp_path / "folder", class_names=[*"abcdefghij"])
    from_run = load_classifier(tmp_path / "run", report=lambda line: None)
    from_folder = load_classifier(tmp_path / "folder")
    assert from_run.stamp.sha256 == from_folder.stamp.sha256
    assert from_run.stamp.preprocessing == from_folder.stamp.preprocessing


@pytest.mark.parametrize("names", [None, imagenet_names(), imagenet_wnids()])
def test_a_thousand_unnamed_or_imagenets_classes_are_imagenets(tmp_path, names):
    folder, _ = write(tmp_path / "m", num_classes=1000, class_names=names)
    assert load_classifier(folder).is_imagenet


def test_a_thousand_other_classes_are_not_imagenets(tmp_path):
    names = tuple(f"thing {number}" for number in range(1000))
    folder, _ = write(tmp_path / "m", num_classes=1000, class_names=names)
    assert load_classifier(folder).class_names == names


@pytest.mark.parametrize(
    ("config", "prepared", "message"),
    [
        ({"num_classes": 0}, PREPARED, "no classifier"),
        ({"in_channels": 1}, PREPARED.for_channels(1), "images of 1 channels; the sets are RGB"),
    ],
)
def test_models_that_cannot_be_measured_are_refused(tmp_path, config, prepared, message):
    names = None if config.get("num_classes") == 0 else NAMES
    folder, _ = write(tmp_path / "m", class_names=names, prepared=prepared, **config)
    with pytest.raises(ValueError, match=message):
        load_classifier(folder)


def test_a_checkpoint_file_is_imported_as_the_command_does(tmp_path):
    file = write_safetensors(tmp_path / "van.safetensors", small_state_dict())
    import_checkpoint(file, tmp_path / "folder", report=lambda line: None)
    from_file = load_classifier(file, report=lambda line: None)
    assert from_file.stamp.sha256 == load_classifier(tmp_path / "folder").stamp.sha256
    assert from_file.stamp.name == "van"


def test_a_file_that_does_not_tell_its_model_names_the_command(tmp_path):
    file = write_safetensors(tmp_path / "van.safetensors", {"x": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"van\.safetensors .*--out DIR"):
        load_classifier(file)


def test_a_place_without_a_model_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "nothing")


def pooled(images):
    return jnp.mean(images, axis=(1, 2)) @ jnp.asarray(WEIGHTS, jnp.float32)


WEIGHTS = np.random.default_rng(0).normal(size=(3, CLASSES))


def test_any_function_is_a_model_with_a_hash_of_what_it_computes():
    first = wrap_function(pooled, name="f", preprocessing=PREPARED, class_names=NAMES)
    again = wrap_function(pooled, name="f", preprocessing=PREPARED, class_names=NAMES)
    other = wrap_function(
        lambda images: pooled(images) * 2, name="f", preprocessing=PREPARED, class_names=NAMES
    )
    assert first.stamp.sha256 == again.stamp.sha256 != other.stamp.sha256
    images = jnp.ones((2, 32, 32, 3))
    np.testing.assert_array_equal(first.logits(first.variables, images), pooled(images))


def test_variables_decide_on_the_hash():
    def linear(weights, images):
        return jnp.mean(images, axis=(1, 2)) @ weights["w"]

    hashes = {
        wrap_function(
            linear,
            name="f",
            preprocessing=PREPARED,
            class_names=NAMES,
            variables={"w": jnp.asarray(WEIGHTS, jnp.float32) * factor},
        ).stamp.sha256
        for factor in (1, 1, 2)
    }
    assert len(hashes) == 2


def test_a_functions_hash_is_the_same_in_another_process():
    code = """
import jax.numpy as jnp
from lska_jax.models.table import Preprocessing
from lska_jax.ops import gelu
from lska_jax.robustness.sweep.classifier import wrap_function
f = lambda images: jnp.tile(gelu(jnp.mean(images, axis=(1, 2))), (1, 2))
sha256 = wrap_function(f, name="f", preprocessing=Preprocessing(image_size=8),
                       class_names="abcdef").stamp.sha256
print(sha256)
"""
    here: dict[str, str] = {}
    exec(code, here)
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here["sha256"] and len(here["sha256"]) == 64


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (pooled, None),
        (pooled, NAMES[:5]),
        (lambda images: images, NAMES),
        (lambda images: (pooled(images), pooled(images)), NAMES),
        (lambda images: (pooled(images),), NAMES),
        (lambda images: pooled(images).astype(jnp.int32), NAMES),
    ],
)
def test_functions_without_logits_of_the_classes_are_refused(function, names):
    with pytest.raises(ValueError, match="two images give"):
        wrap_function(function, name="f", preprocessing=PREPARED, class_names=names)


def test_weights_closed_over_inside_a_jitted_function_decide_on_the_hash():
    def model(factor):
        weights = jnp.asarray(WEIGHTS, jnp.float32) * factor
        inner = jax.jit(lambda x: jax.checkpoint(lambda y: y @ weights)(x))
        return lambda images: inner(jnp.mean(images, axis=(1, 2)))

    hashes = {
        wrap_function(
            model(factor), name="f", preprocessing=PREPARED, class_names=NAMES
        ).stamp.sha256
        for factor in (1, 1, 2)
    }
    assert len(hashes) == 2


def test_a_function_of_numpy_is_refused():
    with pytest.raises(ValueError, match="f cannot be traced by JAX"):
        wrap_function(
            lambda images: np.asarray(images), name="f", preprocessing=PREPARED, class_names=NAMES
        )


def test_imagenets_own_names_are_imagenet():
    def logits(images):
        return jnp.tile(jnp.mean(images, axis=(1, 2, 3))[:, None], (1, 1000))

    for names in (imagenet_names(), imagenet_wnids(), None):
        wrapped = wrap_function(logits, name="f", preprocessing=PREPARED, class_names=names)
        assert wrapped.is_imagenet


def test_modules_with_dropout_are_models_whatever_their_random_state():
    class Small(nnx.Module):
        def __init__(self, seed):
            rngs = nnx.Rngs(0, dropout=seed)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.linear = nnx.Linear(3, CLASSES, rngs=rngs)

        def __call__(self, images):
            return self.linear(self.dropout(jnp.mean(images, axis=(1, 2))))

    first, second = as_classifiers(
        {"a": Small(1), "b": Small(2)}, preprocessing=PREPARED, class_names=NAMES
    )
    assert first.stamp.sha256 == second.stamp.sha256
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    expected = Small(1).linear(jnp.mean(images, axis=(1, 2)))
    np.testing.assert_array_equal(first.logits(first.variables, images), expected)


def test_arrays_hash_by_name_shape_type_and_value():
    array = np.arange(6, dtype=np.float32)
    variants = [
        {"a": array},
        {"b": array},
        {"a": array.reshape(2, 3)},
        {"a": array.astype(np.int32)},
        {"a": array + 1},
    ]
    assert len({hash_arrays(variant) for variant in variants}) == len(variants)
    assert hash_arrays({"a": array, "b": array}) == hash_arrays({"b": array, "a": array})
