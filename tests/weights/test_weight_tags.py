"""The table of published weights, and imports by tag."""

import json

import pytest
import toy_family  # noqa: F401  (registers its models)
from published_folders import TOY_TAGS, toy_state_dict
from small_models import write_safetensors

from lska_jax.commands.convert import main
from lska_jax.models import weight_tags
from lska_jax.models.table import Preprocessing, families, list_models, model_entry
from lska_jax.models.weight_tags import find_tag, measured, weight_tag, weights_of
from lska_jax.weights import import_checkpoint
from lska_jax.weights.model_facts import CROP_MODES, INTERPOLATIONS

TAGGED = [name for name in list_models() if weights_of(name)]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", TAGGED)
def test_every_tag_says_where_its_weights_are_and_how_images_are_prepared(name):
    for tag in weights_of(name).values():
        assert bool(tag.hub) != bool(tag.place) and tag.license
        assert tag.num_classes in (0, 1000, 11821, 21841, 21843)
        prepared = tag.preprocessing
        assert prepared.interpolation in INTERPOLATIONS and prepared.crop_mode in CROP_MODES
        assert 0.8 < prepared.crop_pct <= 1 and prepared.image_size in (224, 256, 384)
        assert find_tag(tag.name) == tag


@pytest.mark.parametrize("name", TAGGED)
def test_a_fresh_model_is_prepared_as_one_of_its_tags(name):
    wanted = {tag.preprocessing for tag in weights_of(name).values()}
    assert model_entry(name).preprocessing in wanted


def test_all_models_of_the_families_beside_van_have_published_weights():
    others = [f for f in families().values() if f.name not in ("van", "toy")]
    assert [m for family in others for m in family.models if not weights_of(m)] == []


@pytest.mark.parametrize(
    ("name", "mean", "crop_pct", "size", "mode"),
    [
        ("convnext_tiny.fb_in1k", 0.485, 0.875, 224, "center"),
        ("convnext_tiny.in12k_ft_in1k", 0.485, 0.95, 224, "center"),
        ("convnext_small.fb_in22k_ft_in1k_384", 0.485, 1.0, 384, "squash"),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 0.5, 0.9, 224, "center"),
        ("deit3_base_patch16_224.fb_in22k_ft_in1k", 0.485, 1.0, 224, "center"),
        ("swin_tiny_patch4_window7_224.ms_in1k", 0.485, 0.9, 224, "center"),
        ("pvt_v2_b2_li.in1k", 0.485, 0.9, 224, "center"),
        ("inception_next_base.sail_in1k", 0.485, 0.95, 224, "center"),
        ("unireplknet_s.in22k_ft_in1k_384", 0.485, 1.0, 384, "squash"),
        ("van_lka_base.in1k", 0.5, 0.9, 224, "center"),
    ],
)
def test_preprocessing_is_that_of_the_tag(name, mean, crop_pct, size, mode):
    found = find_tag(name)
    assert found is not None
    prepared = found.preprocessing
    assert prepared.mean[0] == mean and prepared.crop_pct == crop_pct
    assert (prepared.image_size, prepared.crop_mode) == (size, mode)


def test_an_unknown_tag_is_refused_with_those_of_the_model():
    with pytest.raises(
        ValueError, match=r"no weights 'x'\. Published weights of pvt_v2_b0: in1k\."
    ):
        weight_tag("pvt_v2_b0", "x")
    assert find_tag("pvt_v2_b0.x") is None and find_tag("nobody.in1k") is None


def test_published_accuracy_is_kept_beside_the_weights():
    assert measured("convnext_tiny", "fb_in1k")["paper_top1"] == 82.1
    timm = measured("deit_tiny_patch16_224", "fb_in1k")["timm_top1"]["224@0.9"]
    assert timm["imagenet"] == pytest.approx(72.19, abs=0.05)


@pytest.fixture
def toy_file(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_tags, "_rows", lambda: TOY_TAGS)
    return write_safetensors(tmp_path / "toy.safetensors", toy_state_dict())


def imported(path, **options):
    return import_checkpoint(path, path.parent / "out", report=lambda line: None, **options)


def refusal(path, **options) -> str:
    """Return the message of a refused import, having seen that nothing was written."""
    with pytest.raises(ValueError) as caught:
        imported(path, **options)
    assert list(path.parent.iterdir()) == [path]
    return str(caught.value)


# The toy's file does not say its width: only its model does.
TOY = {"model": "toy_small"}


def test_a_tag_brings_its_preprocessing_licence_and_origin(toy_file):
    facts = imported(toy_file, weights="squashed", **TOY)
    assert facts.preprocessing == weight_tag("toy_small", "squashed").preprocessing
    assert facts.license == "mit"
    assert facts.source["tag"] == "toy_small.squashed"
    assert facts.source["hub"] == "org/toy.squashed"


def test_the_command_takes_the_tag_and_a_licence_of_ones_own(toy_file, capsys):
    out = toy_file.parent / "out"
    arguments = [str(toy_file), "--out", str(out), "--model", "toy_small", "--weights", "plain"]
    assert main([*arguments, "--license", "apache-2.0"]) == 0
    assert "Preprocessing of toy_small.plain: mean 0.5" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["license"] == "apache-2.0"


def test_tags_that_disagree_are_listed_where_none_is_given(toy_file):
    message = refusal(toy_file, **TOY)
    assert "Pass --weights with one of these:" in message
    assert "toy_small.plain: mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5, 16 pixels, crop 0.9" in message
    assert "toy_small.squashed:" in message and "16 pixels, squashed" in message
    # Weights of other classes are no answer.
    assert "toy_small.large" not in message


def test_a_preprocessing_of_the_family_is_taken_in_place_of_a_tag(toy_file):
    assert imported(toy_file, preprocessing="reference", **TOY).preprocessing == Preprocessing(
        image_size=16
    )


def test_a_tag_and_a_preprocessing_are_one_too_many(toy_file):
    message = refusal(toy_file, weights="plain", preprocessing="reference", **TOY)
    assert "has a preprocessing of its own" in message


def test_where_all_tags_agree_their_preprocessing_is_taken_and_said(toy_file, monkeypatch):
    rows = {"toy_small": {"squashed": TOY_TAGS["toy_small"]["squashed"]}}
    monkeypatch.setattr(weight_tags, "_rows", lambda: rows)
    lines: list[str] = []
    out = toy_file.parent / "out"
    facts = import_checkpoint(toy_file, out, report=lines.append, **TOY)
    assert facts.preprocessing.crop_mode == "squash" and "tag" not in facts.source
    assert any("that of toy_small.squashed" in line for line in lines)


def test_an_unknown_tag_is_refused_before_anything_is_written(toy_file):
    assert "Published weights of toy_small: plain, squashed" in refusal(
        toy_file, weights="x", **TOY
    )


def test_a_tag_of_other_classes_is_refused(toy_file):
    message = refusal(toy_file, weights="large", **TOY)
    assert "has 1000 classes, and toy_small.large has 21841" in message


def test_a_tag_names_the_model_where_none_is_given(toy_file):
    assert imported(toy_file, weights="plain").name == "toy_small"


def test_a_tag_is_taken_with_its_models_name_as_the_messages_list_it(toy_file):
    facts = imported(toy_file, weights="toy_small.squashed", **TOY)
    assert facts.source["tag"] == "toy_small.squashed"


def test_22k_classes_have_no_names_and_are_left_out_or_named(toy_file):
    path = write_safetensors(toy_file, toy_state_dict(21841))
    message = refusal(path, weights="large", **TOY)
    assert "21841 classes of ImageNet-22k" in message and "--num_classes 0" in message
    facts = imported(path, weights="large", num_classes=0, **TOY)
    assert facts.config.num_classes == 0
    kept = imported(path, weights="large", class_names=(), overwrite=True, **TOY)
    assert kept.config.num_classes == 21841 and kept.class_names is None
