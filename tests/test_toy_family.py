"""A family that the package does not know works everywhere: built, trained, published, exported."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_config
import toy_family
from PIL import Image
from small_runs import two_devices as two_devices

from lska_jax import create_model, fold_batch_norm, list_models, model_entry
from lska_jax.analysis.complexity import Cost, network_cost
from lska_jax.commands.compile_check import check
from lska_jax.models.fold import fold_for_inference
from lska_jax.models.table import register_family
from lska_jax.robustness.sweep.classifier import load_classifier
from lska_jax.tasks.predict import predict
from lska_jax.training.config_check import check_config
from lska_jax.training.dry_run import describe_run
from lska_jax.training.loop import train
from lska_jax.training.publish import publish
from lska_jax.weights.export_jax import export_model
from lska_jax.weights.export_torch import export_checkpoint
from lska_jax.weights.import_torch import import_checkpoint
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import write_model_folder
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.transfer import transfer_kernels

pytestmark = pytest.mark.usefixtures("two_devices")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("toy") / "run"
    config = toy_config.get_config()
    check_config(config)
    train(config, workdir=workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(run) -> Path:
    publish(run, run.parent / "published", report=lambda line: None)
    return run.parent / "published"


def images(side: int = 16, *, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, side, side, channels)).astype(np.float32)


def test_its_models_are_listed_and_built_by_name():
    assert list_models("toy_*") == ["toy_small", "toy_large"]
    model = create_model("toy_large", num_classes=5)
    assert model.config == toy_family.ToyConfig(width=16, num_classes=5)
    assert model_entry("toy_large").preprocessing.image_size == 16
    assert model(images(channels=3)).shape == (2, 5)


def test_a_field_that_it_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(TypeError, match=r"no argument k for toy; allowed: .*width"):
        create_model("toy_small", k=23)


def test_a_config_with_fields_of_another_family_is_refused():
    config = toy_config.get_config()
    config.model = {**config.model.to_dict(), "name": "van_lska_tiny"}
    with pytest.raises(ValueError, match=r"Unknown config key .model.width.\. .*model\.depths"):
        check_config(config)


def test_its_values_are_checked_before_anything_is_built():
    config = toy_config.get_config()
    config.model.width = 0
    with pytest.raises(ValueError, match=r"model\.width=0 must be at least 1"):
        check_config(config)


def test_it_trains_and_publishes_what_it_learned(folder):
    published = json.loads((folder / "config.json").read_text())
    assert published["family"] == "toy" and published["model"] == "toy_small"
    assert published["source"]["eval/top1"] > 0.2
    assert "A toy, for lska_jax." in (folder / "README.md").read_text()


def test_the_published_model_is_loaded_by_its_folder(folder):
    model = create_model(pretrained=folder)
    assert type(model) is toy_family.Toy and model.config.in_channels == 1
    other = create_model(pretrained=folder, num_classes=3)
    np.testing.assert_array_equal(other.stem.kernel[...], model.stem.kernel[...])
    assert other.classifier.kernel.shape == (8, 3)
    with pytest.raises(ValueError, match="width: asked for 16, the weights have 8"):
        create_model("toy_large", pretrained=folder)


def test_files_are_classified_with_it(folder, tmp_path):
    Image.new("L", (20, 20), 200).save(tmp_path / "grey.png")
    (prediction,) = predict(folder, [tmp_path / "grey.png"], top=3)
    assert len(prediction.scores) == 3 and not prediction.problem


def test_its_weights_go_to_pytorchs_names_and_back(folder, tmp_path):
    export_checkpoint(folder, tmp_path / "toy.safetensors")
    lines: list[str] = []
    import_checkpoint(
        tmp_path / "toy.safetensors", tmp_path / "back", model="toy_small", report=lines.append
    )
    assert lines[0].endswith("naming torch: a toy of width 8, 10 classes, 170 parameters.")
    before, after = (arrays_of(create_model(pretrained=d)) for d in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_a_file_of_one_family_is_no_model_of_another(folder, tmp_path):
    export_checkpoint(folder, tmp_path / "toy.safetensors")
    with pytest.raises(ValueError, match="holds arrays of toy, and van_lska_tiny is of van"):
        import_checkpoint(tmp_path / "toy.safetensors", tmp_path / "out", model="van_lska_tiny")
    with pytest.raises(ValueError, match=r"pass --model with one of toy_small, toy_large"):
        import_checkpoint(tmp_path / "toy.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_exported_for_every_backend(folder):
    model = create_model(pretrained=folder)
    exported = export_model(model)
    x = images(8)
    expected = fold_for_inference(model)(x)
    np.testing.assert_allclose(exported.call(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


def test_what_it_lacks_is_refused_with_the_families_that_have_it():
    model = create_model("toy_small")
    with pytest.raises(ValueError, match="toy has nothing to fold.*; these families have: .*van"):
        fold_batch_norm(model)
    with pytest.raises(ValueError, match="toy has no kernels .*; these families have: van"):
        transfer_kernels(model, k=35)


def test_its_cost_is_counted():
    # 3 x 3 x 3 taps and a bias at 112 x 112 places, then a product with 10 classes.
    cost = network_cost(toy_family.ToyConfig(num_classes=10))
    macs = 27 * 8 * 112**2 + 8 * 10
    assert cost == Cost(27 * 8 + 8 + 80 + 10, macs, macs + 8 * 112**2 + 10)


def test_a_dry_run_and_a_compile_check_work(capsys):
    config = toy_config.get_config()
    assert "a toy of width 8, 10 classes, float32" in describe_run(config)
    config.training.batch_size = 8
    checked = check(config, topology="cuda:1", steps=["train"])
    assert checked["train"]["devices"] == 1
    assert "a toy of width 8" in capsys.readouterr().out


def test_the_sweep_measures_it(tmp_path):
    model = create_model("toy_small", num_classes=4)
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    write_model_folder(tmp_path / "rgb", facts, arrays_of(model))
    classifier, x = load_classifier(tmp_path / "rgb"), jnp.asarray(images(channels=3))
    logits = jax.jit(classifier.logits)(classifier.variables, x)
    np.testing.assert_allclose(logits, model(x), rtol=1e-5, atol=1e-6)


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="Choose another name"):
        register_family(toy_family.dataclasses.replace(toy_family.FAMILY, name="other"))
