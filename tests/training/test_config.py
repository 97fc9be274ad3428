"""The configs, their arguments, and what the check of a config refuses."""

import math
import re
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lska_jax.training.config import (
    base_config,
    describe_type,
    has_key,
    unknown_key_message,
)
from lska_jax.training.config_check import (
    METRIC_WRITERS,
    check_against_devices,
    check_config,
    check_keys,
    check_sources,
    check_splits_differ,
)
from lska_jax.training.van_recipe import imagenet_config, parse_argument

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
# Those whose argument is a kernel size; the argument of other families is a model's name.
KERNEL_CONFIGS = [path for path in CONFIGS if "van_recipe" in path.read_text()]
IMAGENET_CONFIGS = [path for path in CONFIGS if path.stem.startswith("van_")]

NAN, INF = math.nan, math.inf


def load(path: Path, argument: str = "") -> ConfigDict:
    return runpy.run_path(str(path))["get_config"](argument)


def digits(**changes: object) -> ConfigDict:
    """Return the digits config with values replaced; "group__name" stands for group.name."""
    config = load(next(path for path in CONFIGS if path.stem == "digits"))
    for key, value in changes.items():
        group, name = key.split("__")
        config[group][name] = value
    return config


def by_name(path: Path) -> str:
    return path.stem


def test_all_configs_that_users_expect_are_there():
    lska = {f"van_lska_{size}" for size in ("tiny", "small", "base")}
    lka = {f"van_lka_{size}" for size in ("tiny", "small", "base", "large")}
    embedded = {"digits", "cifar10"}
    assert {path.stem for path in KERNEL_CONFIGS} == embedded | lska | lka


@pytest.mark.parametrize("path", CONFIGS, ids=by_name)
def test_every_config_passes_its_check_and_fits_eight_devices_once_the_batch_does(path):
    config = load(path)
    check_config(config)
    check_splits_differ(config)
    config.training.eval_batch_size = 512
    check_against_devices(config, device_count=8)


@pytest.mark.parametrize("path", CONFIGS, ids=by_name)
def test_every_docstring_names_command_hardware_and_result(path):
    docstring = path.read_text().split('"""')[1]
    assert f"python train.py --config configs/{path.name}" in docstring
    assert "Hardware:" in docstring
    assert re.search(r"Result: (not yet run|.*\d.*%)", docstring)


@pytest.mark.parametrize("path", KERNEL_CONFIGS, ids=by_name)
def test_the_argument_sets_the_kernel_size_as_the_override_does(path):
    overridden = load(path)
    overridden.model.k = 35
    assert load(path, "35").to_dict() == overridden.to_dict()
    assert load(path, "k=35").to_dict() == overridden.to_dict()


@pytest.mark.parametrize("path", KERNEL_CONFIGS, ids=by_name)
@pytest.mark.parametrize(("argument", "k"), [("trivial", 23), ("21,trivial", 21), ("trivial,7", 7)])
def test_the_argument_chooses_the_trivial_form(path, argument, k):
    config = load(path, argument)
    check_config(config)
    assert config.model.name == re.sub("(lska|lka)", r"\1_trivial", load(path).model.name)
    assert config.model.k == k


@pytest.mark.parametrize("path", KERNEL_CONFIGS, ids=by_name)
@pytest.mark.parametrize("argument", ["tiny", "2.5", "-7", "k=", "35;trivial", "trivial2"])
def test_an_argument_that_is_not_understood_is_refused(path, argument):
    with pytest.raises(ValueError, match=r"is not understood; allowed: a kernel size, trivial"):
        load(path, argument)


def test_no_argument_is_the_papers_default():
    assert parse_argument(None) == parse_argument("") == {"k": 23, "is_trivial": False}


@pytest.mark.parametrize("path", IMAGENET_CONFIGS, ids=by_name)
def test_imagenet_configs_are_the_papers_recipe(path):
    """The defaults of the reference's train.py; VAN's own recipe has twice the batch."""
    config = load(path)
    attention, size = path.stem.removeprefix("van_").split("_")
    assert config.model.to_dict() | {"name": f"van_{attention}_{size}", "k": 23} == (
        imagenet_config(attention, size, "").model.to_dict()
        | {"drop_path_rate": 0.2 if size == "large" else 0.1}
    )
    optimizer = config.optimizer
    assert (optimizer.epochs, optimizer.warmup_epochs, optimizer.cooldown_epochs) == (300, 5, 10)
    assert optimizer.learning_rate == 1e-3
    assert optimizer.min_learning_rate == optimizer.warmup_learning_rate == 1e-6
    assert optimizer.schedule_by == "epoch"
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.05, 0)
    data = config.data
    assert (data.mixup_alpha, data.cutmix_alpha, data.switch_prob) == (0.8, 1.0, 0.5)
    assert (data.rand_augment, data.erase_prob) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert data.crop_scale == (0.08, 1.0)
    assert data.crop_ratio == pytest.approx((3 / 4, 4 / 3))
    assert (data.hflip_prob, data.train_interpolation) == (0.5, "random")
    assert data.mean == data.std == (0.5, 0.5, 0.5)
    assert (data.image_size, data.crop_pct, data.interpolation) == (224, 0.9, "bicubic")
    assert config.training.batch_size == (1024 if attention == "lka" else 512)
    assert config.training.label_smoothing == 0.1
    assert config.training.ema_decay == 0
    assert config.model.drop_rate == 0


REFUSED = [
    ({"model__name": "van_lska_tny"}, "Did you mean van_lska_tiny"),
    ({"model__k": 24}, "Nearest valid k: 23 or 29"),
    ({"model__k": 0}, "Nearest valid k: 5"),
    ({"model__k": -7}, "Nearest valid k: 5"),
    ({"model__k": 10**9}, "model.k=1000000000 must be at most 9999"),
    ({"model__k": 23, "model__dilation": 5}, "Nearest valid k for d=5: 19 or 29"),
    ({"model__dilation": 0}, "dilation must be at least 1, got 0"),
    ({"model__name": "van_lska_trivial_tiny", "model__k": 22}, "Nearest valid: 21 or 23"),
    ({"model__name": "van_lka_trivial_tiny", "model__dilation": 3}, "has no dilation"),
    ({"model__dims": (8, 16)}, "need one entry for each stage"),
    ({"model__dims": ()}, "need one entry for each stage"),
    ({"model__dims": (8, 0, 8)}, "model.dims[1]=0 must be at least 1"),
    ({"model__dims": (8, 8.5, 8)}, "model.dims[1]=8.5 must be a whole number"),
    ({"model__dims": (8, True, 8)}, "model.dims[1]=True must be a whole number"),
    ({"model__depths": (1, 1, -1)}, "model.depths[2]=-1 must be at least 1"),
    ({"model__depths": ("1", 1, 1)}, "model.depths[0]='1' must be a whole number"),
    ({"model__ffn_ratios": (4, 0, 4)}, "model.ffn_ratios[1]=0 must be at least 1"),
    ({"model__num_classes": 0}, "model.num_classes=0 must be at least 1"),
    ({"model__in_channels": 2}, "images are read with 1 or 3 channels"),
    ({"model__stem_stride": 0}, "model.stem_stride=0 must be at least 1"),
    ({"model__drop_rate": 1.0}, "model.drop_rate=1.0 must be at least 0 and below 1"),
    ({"model__drop_path_rate": NAN}, "model.drop_path_rate=nan must be at least 0 and below 1"),
    ({"model__dtype": "float16"}, "model.dtype='float16' is unknown; allowed: float32, bfloat16"),
    ({"model__implementation": "fft"}, "Unknown implementation 'fft'; allowed: auto, xla, shift"),
    ({"data__source": "imagenet"}, "allowed: digits, drawings, folder:PATH, csv:PATH, tfds:NAME"),
    ({"data__image_size": 0}, "data.image_size=0 must be at least 1"),
    ({"data__mean": (0.5, 0.5, 0.5)}, "needs one value for each of the 1 channels"),
    ({"data__mean": (128.0,)}, "data.mean[0]=128.0 must be at least 0 and at most 1"),
    ({"data__mean": (NAN,)}, "data.mean[0]=nan must be at least 0 and at most 1"),
    ({"data__mean": ("(0.5",)}, "data.mean[0]='(0.5' must be a number"),
    ({"data__std": (0.0,)}, "data.std[0]=0.0 must be above 0"),
    ({"data__std": (INF,)}, "data.std[0]=inf must be above 0"),
    ({"data__crop_pct": 1.5}, "data.crop_pct=1.5 must be at least 0.05 and at most 1"),
    ({"data__interpolation": "nearest"}, "'nearest' is unknown; allowed: bilinear, bicubic"),
    ({"data__train_interpolation": "area"}, "allowed: bilinear, bicubic, random"),
    ({"data__crop": "centre"}, "allowed: random_resized, padded, none"),
    ({"data__crop": "none"}, "data.pad=1 works with data.crop='padded', not 'none'"),
    ({"data__pad": -1}, "data.pad=-1 must be at least 0 and at most 8"),
    ({"data__pad": 10**6}, "data.pad=1000000 must be at least 0 and at most 8"),
    ({"data__crop_scale": (0.5,)}, "data.crop_scale=(0.5,) must be (low, high) with low <= high"),
    ({"data__crop_scale": (1.0, 0.5)}, "must be (low, high) with low <= high"),
    ({"data__crop_scale": (0.5, 2.0)}, "data.crop_scale[1]=2.0 must be above 0 and at most 1"),
    ({"data__crop_ratio": (1.0, INF)}, "data.crop_ratio[1]=inf must be above 0"),
    ({"data__crop_ratio": ("a", "b")}, "data.crop_ratio[0]='a' must be a number"),
    ({"data__rand_augment": "rand-m99"}, "'m99' is outside 0 to 10"),
    ({"data__rand_augment": "auto"}, "it starts with 'auto'"),
    ({"data__hflip_prob": 1.5}, "data.hflip_prob=1.5 must be at least 0 and at most 1"),
    ({"data__erase_prob": -0.1}, "data.erase_prob=-0.1 must be at least 0 and at most 1"),
    ({"data__switch_prob": NAN}, "data.switch_prob=nan must be at least 0 and at most 1"),
    ({"data__mixup_alpha": -1.0}, "data.mixup_alpha=-1.0 must be at least 0"),
    ({"data__cutmix_alpha": INF}, "data.cutmix_alpha=inf must be at least 0"),
    ({"data__num_workers": -2}, "data.num_workers=-2 must be at least -1"),
    ({"data__max_image_pixels": 0}, "data.max_image_pixels=0 must be at least 1"),
    ({"data__max_broken_fraction": 2.0}, "must be at least 0 and at most 1"),
    ({"optimizer__learning_rate": -1e-3}, "optimizer.learning_rate=-0.001 must be at least 0"),
    ({"optimizer__learning_rate": INF}, "optimizer.learning_rate=inf must be at least 0"),
    ({"optimizer__learning_rate": 1e300}, "must be at least 0 and at most 1e+38"),
    ({"optimizer__min_learning_rate": 1.0}, "must be at most optimizer.learning_rate=0.004"),
    ({"optimizer__warmup_learning_rate": 1.0}, "must be at most optimizer.learning_rate=0.004"),
    ({"optimizer__epochs": 0}, "optimizer.epochs=0 must be at least 1"),
    ({"optimizer__warmup_epochs": 40}, "must be below optimizer.epochs=40"),
    ({"optimizer__warmup_epochs": -1}, "optimizer.warmup_epochs=-1 must be at least 0"),
    ({"optimizer__cooldown_epochs": -1}, "optimizer.cooldown_epochs=-1 must be at least 0"),
    ({"optimizer__schedule_by": "day"}, "'day' is unknown; allowed: epoch, step"),
    ({"optimizer__weight_decay": -0.05}, "optimizer.weight_decay=-0.05 must be at least 0"),
    ({"optimizer__beta1": 1.0}, "optimizer.beta1=1.0 must be at least 0 and below 1"),
    ({"optimizer__beta2": -0.1}, "optimizer.beta2=-0.1 must be at least 0 and below 1"),
    ({"optimizer__epsilon": 0.0}, "optimizer.epsilon=0.0 must be at least 1e-20"),
    ({"optimizer__clip_norm": NAN}, "optimizer.clip_norm=nan must be at least 0"),
    ({"optimizer__muon_learning_rate": -0.05}, "muon_learning_rate=-0.05 must be at least 0"),
    ({"training__batch_size": 0}, "training.batch_size=0 must be at least 1"),
    ({"training__eval_batch_size": -8}, "training.eval_batch_size=-8 must be at least 1"),
    ({"training__gradient_accumulation": 0}, "gradient_accumulation=0 must be at least 1"),
    ({"training__seed": -1}, "training.seed=-1 must be at least 0 and below 4294967296"),
    ({"training__seed": 2**32}, "must be at least 0 and below 4294967296"),
    ({"training__label_smoothing": 1.0}, "must be at least 0 and below 1"),
    ({"training__ema_decay": 1.0}, "training.ema_decay=1.0 must be at least 0 and below 1"),
    ({"training__fsdp": 0}, "training.fsdp=0 must be at least 1"),
    ({"training__eval_every_epochs": 0}, "training.eval_every_epochs=0 must be at least 1"),
    ({"training__checkpoint_every_steps": -1}, "must be at least 0"),
    ({"training__keep_latest": 0}, "training.keep_latest=0 must be at least 1"),
    ({"training__keep_best": -1}, "training.keep_best=-1 must be at least 0"),
    ({"training__log_every_steps": 0}, "training.log_every_steps=0 must be at least 1"),
    ({"training__max_bad_steps": 0}, "training.max_bad_steps=0 must be at least 1"),
    ({"training__writers": ("jsonl", "csv")}, "'csv' is unknown; allowed: jsonl, tensorboard"),
    ({"training__writers": ("jsonl", "jsonl")}, "names a writer twice"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda case: str(case)[:60])
def test_a_bad_value_is_refused_with_what_was_given_and_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_config(digits(**changes))


def test_images_too_small_for_the_network_are_refused_before_a_run_begins():
    config = load(next(path for path in CONFIGS if path.stem == "convnext"))
    config.data.image_size = 31
    with pytest.raises(ValueError, match=r"data\.image_size=31: convnext_tiny takes 32 or more"):
        check_config(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__k": 65},
        {"model__k": 23, "model__dilation": 2},
        {"model__dims": (), "model__depths": (), "model__ffn_ratios": ()},
        {"model__dims": (8,), "model__depths": (1,), "model__ffn_ratios": (2,)},
        {"data__crop": "random_resized", "data__pad": 0},
        {"data__rand_augment": "rand-m9-mstd0.5-inc1"},
        {"training__writers": ()},
        {"training__seed": 2**32 - 1},
        {"optimizer__warmup_epochs": 0},
    ],
    ids=str,
)
def test_unusual_but_sound_values_pass(changes):
    check_config(digits(**changes))


def test_several_mistakes_are_listed_at_once():
    config = digits(model__k=24, data__crop_pct=3.0, optimizer__epochs=-1, training__seed=-1)
    with pytest.raises(ValueError) as caught:
        check_config(config)
    lines = str(caught.value).splitlines()[1:]
    assert all(line.startswith("- ") for line in lines)
    for key in ("k=24", "data.crop_pct=3.0", "optimizer.epochs=-1", "training.seed=-1"):
        assert any(key in line for line in lines)


@pytest.mark.parametrize(
    ("device_count", "changes", "message"),
    [
        (8, {"training__batch_size": 60}, "batch_size=60 is not divisible by 8 (8 devices)"),
        (8, {"training__batch_size": 60}, "nearest: 56 or 64."),
        (8, {"training__batch_size": 4}, "nearest: 8."),
        (8, {"training__eval_batch_size": 100}, "training.eval_batch_size=100 is not divisible"),
        (8, {"training__gradient_accumulation": 3}, "24 (8 devices x 3 gradient accumulation"),
        (8, {"training__fsdp": 3}, "fsdp=3 does not divide the 8 devices; allowed: 1, 2, 4, 8"),
        (6, {}, "training.batch_size=64 is not divisible by 6"),
    ],
)
def test_batches_and_fsdp_that_do_not_fit_the_devices_are_refused(device_count, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_against_devices(digits(**changes), device_count=device_count)


def test_all_that_does_not_fit_the_devices_is_listed_at_once():
    config = digits(training__batch_size=60, training__eval_batch_size=100, training__fsdp=16)
    with pytest.raises(ValueError) as caught:
        check_against_devices(config, device_count=8)
    assert len(str(caught.value).splitlines()) == 1 + 3


@pytest.mark.parametrize("num_classes", [9, 11])
def test_more_or_fewer_classes_than_labels_are_refused(num_classes):
    message = rf"num_classes={num_classes}, but digits split 'test' has 10 classes; pass --config"
    with pytest.raises(ValueError, match=message):
        check_sources(digits(model__num_classes=num_classes), is_training=False)


def test_a_batch_larger_than_the_training_split_is_refused():
    config = digits(training__batch_size=2048)
    with pytest.raises(ValueError, match="batch_size=2048 is larger than the 1442 examples"):
        check_sources(config, is_training=True)


def test_a_batch_larger_than_the_evaluation_split_is_fine():
    config = digits(training__batch_size=1442, training__eval_batch_size=2048)
    check_sources(config, is_training=True)


def test_data_that_is_missing_is_an_error_or_told_to_who_asks(tmp_path):
    config = digits(data__source=f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        check_sources(config, is_training=True)
    reasons: list[str] = []
    check_sources(config, is_training=True, on_missing=reasons.append)
    assert len(reasons) == 1
    assert "nowhere does not exist" in reasons[0]


def test_evaluating_on_the_training_split_is_refused_for_training():
    with pytest.raises(ValueError, match="are both 'train'.*Name another split"):
        check_splits_differ(digits(data__eval_split="train"))


def test_an_unknown_key_in_a_known_group_lists_the_group_and_the_closest():
    message = unknown_key_message(base_config(), "optimizer.learning_rat")
    assert "'optimizer.learning_rat'" in message
    assert "Did you mean optimizer.learning_rate" in message
    assert "optimizer.clip_norm" in message
    assert "model.k" not in message


def test_an_unknown_group_lists_the_groups():
    message = unknown_key_message(base_config(), "modle.k")
    assert "Did you mean model.k?" in message
    assert "data, evaluators, model, optimizer, task, training" in message


def test_keys_are_known_and_described_by_their_dotted_names():
    config = base_config()
    assert has_key(config, "model.k")
    assert not has_key(config, "model")
    assert not has_key(config, "model.kk")
    assert describe_type(config, "optimizer.learning_rate") == "float, as in " + (
        "optimizer.learning_rate=0.001"
    )
    assert describe_type(config, "model.dilation").startswith("int")


def test_choices_written_out_for_the_check_are_those_of_their_modules():
    from lska_jax.training.reporting import WRITERS

    assert WRITERS == METRIC_WRITERS


def test_a_model_that_does_not_exist_is_named_and_not_its_fields():
    config = digits(model__name="convnext_tinny")
    with pytest.raises(ValueError, match="Unknown model 'convnext_tinny'. Did you mean") as refusal:
        check_config(config)
    config.model.patch_size = 4
    with pytest.raises(ValueError, match="Unknown model 'convnext_tinny'. Did you mean") as refusal:
        check_config(config)
    assert "Unknown config key" not in str(refusal.value)


@pytest.mark.parametrize(
    ("recipe", "group", "key", "meant"),
    [
        ("digits_segmentation", "segmentation", "crop_sise", "segmentation.crop_size"),
        ("digits_detection", "detection", "canvass", "detection.canvas"),
    ],
)
def test_a_misspelt_key_of_a_task_is_the_command_lines_error(recipe, group, key, meant):
    config = load(next(path for path in CONFIGS if path.stem == recipe))
    with config.unlocked():
        config[group][key] = (8, 8)
    with pytest.raises(
        ValueError, match=f"Unknown config key '{group}.{key}'. Did you mean {meant}"
    ):
        check_keys(config)
