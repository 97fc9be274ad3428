"""The config that is made for images without one."""

import json
from pathlib import Path

import pytest
import toy_family
from PIL import Image

from lska_jax import create_model
from lska_jax.commands import train
from lska_jax.models.table import families, fields_of, section_for
from lska_jax.training.config_check import check_config
from lska_jax.training.own_photos import Wishes, config_for_images
from lska_jax.training.recorded_config import read_config_file
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import write_model_folder
from lska_jax.weights.pretrained import arrays_of

assert toy_family.FAMILY


def write_photos(root: Path, counts: dict[str, int], *, size: tuple[int, int] = (40, 48)) -> Path:
    """Write grey images, named by their folders."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", size, (n % 256, 0, 0)).save(root / folder / f"{n}.png")
    return root


def choose(data: Path | str, **wishes):
    chosen = config_for_images(Wishes(str(data), **{"model": "toy_small", **wishes}))
    check_config(chosen.config)
    return chosen.config, "\n".join(chosen.remarks)


def test_flat_class_folders_are_cut_by_class(tmp_path):
    config, said = choose(write_photos(tmp_path / "photos", {"ant": 20, "bee": 40}), held_out=0.25)
    assert config.data.train_split == "train[:75%]"
    assert config.data.eval_split == "train[75%:]"
    assert config.model.num_classes == 2
    assert "45 images to train on and 15 held out" in said
    assert "ant 15, bee 30" in said


def test_a_seed_draws_what_is_held_out_and_is_that_of_the_run(tmp_path):
    photos = write_photos(tmp_path / "photos", {"ant": 20, "bee": 40})
    config, said = choose(photos, seed=3)
    assert config.data.train_split == "train[:80%;seed=3]"
    assert config.data.eval_split == "train[80%:;seed=3]"
    assert config.training.seed == 3
    assert "drawn by file names and the seed 3" in said


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_split_of_its_own_is_evaluated_on(name, tmp_path):
    counts = {f"{split}/{label}": 8 for split in ("train", name) for label in ("ant", "bee")}
    config, said = choose(write_photos(tmp_path / "photos", counts))
    assert (config.data.train_split, config.data.eval_split) == ("train", "validation")
    assert "16 images to train on and 16 held out (a split of its own)" in said
    with pytest.raises(ValueError, match="has a split validation of its own. Leave --val out"):
        choose(tmp_path / "photos", held_out=0.1)


def test_a_mistyped_folder_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="no folder or file fotos here, so .* TFDS set 'fotos' is"):
        choose("fotos")
    with pytest.raises(ValueError, match="^The TFDS set 'fotos' is not prepared"):
        choose("tfds:fotos")


def test_a_training_split_alone_is_cut(tmp_path):
    photos = write_photos(tmp_path / "photos", {"train/ant": 10, "train/bee": 10})
    assert choose(photos)[0].data.eval_split == "train[80%:]"


def test_a_small_or_missing_class_is_said(tmp_path):
    photos = write_photos(tmp_path / "photos", {"ant": 60, "bee": 10})
    assert "6 times the images of the smallest" in choose(photos)[1]
    photos = write_photos(tmp_path / "few", {"ant": 30, "bee": 1})
    assert "Without an image to train on or to evaluate on: bee." in choose(photos)[1]


def test_the_image_size_is_that_of_the_images_up_to_the_models_own(tmp_path):
    photos = write_photos(tmp_path / "small", {"ant": 4, "bee": 4}, size=(12, 9))
    config, said = choose(photos)
    assert config.data.image_size == 16
    assert "the images have 12 x 9" in said
    assert choose(photos, image_size=24)[0].data.image_size == 24


@pytest.mark.slow
def test_small_images_get_a_smaller_stride_of_the_stem(tmp_path):
    photos = write_photos(tmp_path / "small", {"ant": 4, "bee": 4}, size=(32, 32))
    config, _ = choose(photos, model="van_lska_tiny")
    assert (config.data.image_size, config.model.stem_stride) == (32, 1)


def test_weights_decide_model_preprocessing_and_size(tmp_path):
    photos = write_photos(tmp_path / "photos", {"ant": 10, "bee": 10})
    network = toy_family.ToyConfig(num_classes=5, width=12)
    prepared = toy_family.FAMILY.preprocessing._replace(mean=(0.1, 0.2, 0.3), image_size=24)
    model = toy_family.Toy(network, rngs=toy_family.nnx.Rngs(0))
    start = write_model_folder(
        tmp_path / "start", ModelFacts(config=network, preprocessing=prepared), arrays_of(model)
    )
    config, said = choose(photos, model=None, start=str(start))
    assert (config.model.width, config.model.num_classes) == (12, 2)
    assert config.data.mean == (0.1, 0.2, 0.3)
    assert config.data.image_size == 24
    assert config.training.finetune_from == str(start)
    assert "a toy of width 12, 5 classes, from" in said
    with pytest.raises(ValueError, match="--model toy_large: the weights in .* are those of a toy"):
        choose(photos, model="toy_large", start=str(start))


def test_weights_of_a_segmentor_are_refused_by_name(tmp_path):
    photos = write_photos(tmp_path / "photos", {"ant": 4, "bee": 4})
    model = create_model(
        "van_lska_tiny",
        **{"head": "semantic_fpn", "num_classes": 2, "k": 7, "dims": (4, 4), "depths": (1, 1)},
        ffn_ratios=(1, 1),
    )
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    weights = write_model_folder(tmp_path / "segmentor", facts, arrays_of(model))
    with pytest.raises(ValueError, match="it is no classifier but Semantic FPN"):
        choose(photos, model=None, start=str(weights))


def test_several_labels_an_image_are_found_in_a_csv(tmp_path):
    write_photos(tmp_path, {"images": 20})
    labels = ["sea|boat", "sea", ""]  # the last has none
    lines = [f"images/{n}.png,{labels[n % 3]}" for n in range(20)]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *lines]))
    config, said = choose(tmp_path / "photos.csv")
    assert config.data.multi_label
    assert config.model.num_classes == 2
    assert "16 images to train on and 4 held out" in said
    assert "Classes: 2, with their training images: boat 6, sea 11." in said


def test_a_start_without_labels_paints_what_a_place_of_the_last_map_stands_for(tmp_path):
    photos = write_photos(tmp_path / "photos", {"ant": 4, "bee": 4}, size=(32, 32))
    config, said = choose(photos, task="masked_images")
    assert (config.task, config.model.num_classes) == ("masked_images", 3 * 2**2)
    assert "labels are not read" in said
    with pytest.raises(ValueError, match="--task segmentation needs a config file"):
        choose(photos, task="segmentation")


def test_the_kept_settings_are_the_same_config(tmp_path):
    config, _ = choose(write_photos(tmp_path / "photos", {"ant": 10, "bee": 10}), epochs=7)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = read_config_file(tmp_path / "config.json")
    assert again == config
    assert again.optimizer.epochs == 7


def test_every_named_model_is_found_again_from_its_config():
    for family in families().values():
        for name in family.models:
            config = family.config(**family.models[name], num_classes=7)
            section = section_for(config)
            assert fields_of(section)[1] == {**vars(config)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "x", "--config", "digits"], "--config and --data are both there"),
        (["--config", "digits", "--epochs", "3"], "--epochs goes with --data"),
        (["--config", "digits", "--from", "x"], "--from goes with --data"),
        (["--data", "./nowhere"], "There is no ./nowhere"),
        (["--data", "digits", "--eval_only"], "--eval_only takes the run's own config"),
    ],
)
def test_a_mistake_in_the_options_is_a_message(options, message, capsys):
    assert train.main(options) == 2
    assert message in capsys.readouterr().err


def test_the_run_of_a_kept_config_is_in_its_folder():
    from lska_jax.commands.config_option import ConfigPlace

    assert ConfigPlace(Path("runs/photos/config.json"), "").workdir == Path("runs/photos")
    assert ConfigPlace(Path("photos.json"), "").workdir == Path("runs/photos")
