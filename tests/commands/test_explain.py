"""``lska-jax explain``: what it writes, and mistakes in one line."""

import csv

import numpy as np
import pytest
from PIL import Image
from small_models import ONE_BLOCK, small_model

from lska_jax import create_model
from lska_jax.commands.explain import main
from lska_jax.weights import ModelFacts, write_model_folder
from lska_jax.weights.pretrained import arrays_of


def write(folder, model, side=32):
    prepared = model.preprocessing._replace(image_size=side)
    names = tuple(f"{letter}, thing" for letter in "abcdef"[: model.config.num_classes])
    facts = ModelFacts(config=model.config, preprocessing=prepared, class_names=names)
    return str(write_model_folder(folder, facts, arrays_of(model)))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "van", small_model(k=7, **ONE_BLOCK))


@pytest.mark.slow
def test_every_picture_and_array_is_written_and_shown_on_one_page(folder, photo, tmp_path):
    out = tmp_path / "out"
    assert main([folder, photo, photo, "--out", str(out), "--label", "b"]) == 0
    names = {path.name for path in out.iterdir()}
    pictures = {
        f"{n}_photo.{m}.png" for n in ("01", "02") for m in ("gradcam", "occlusion", "gates")
    }
    assert names == {
        *pictures,
        *("receptive_field.png", "receptive_field.csv", "explain.npz", "explain.html"),
    }
    page = (out / "explain.html").read_text()
    assert page.count("<figure>") == 7 and "http" not in page
    assert "arXiv 1610.02391" in page and "&#x27;b, thing&#x27;" in page
    with np.load(out / "explain.npz") as arrays:
        assert arrays["01_photo/gradcam"].shape == (8, 8)
        assert arrays["receptive_field/van/stage1"].shape == (32, 32)
    with (out / "receptive_field.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["share"] for row in rows] == ["0.2", "0.3", "0.5", "0.99"]


@pytest.mark.slow
def test_receptive_fields_of_several_models_are_drawn_against_k(folder, photo, tmp_path):
    other = write(tmp_path / "other", small_model(k=11, **ONE_BLOCK))
    out = tmp_path / "out"
    assert main([folder, photo, "--compare", other, "--out", str(out)]) == 0
    assert (out / "receptive_field_growth.png").stat().st_size > 10_000
    with np.load(out / "explain.npz") as arrays:
        assert {key.split("/")[1] for key in arrays} == {"van", "other"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deit_tiny_patch16_224", {"dim": 6, "heads": 2, "depth": 2, "patch_size": 8}),
        ("swin_tiny_patch4_window7_224", {"dims": (4,), "depths": (1,), "heads": (1,)}),
        ("pvt_v2_b0", {"dims": (4,), "depths": (1,), "heads": (1,), "reductions": (2,)}),
        ("convnext_tiny", {"dims": (4,), "depths": (1,)}),
        ("inception_next_tiny", {"dims": (8,), "depths": (1,), "mlp_ratios": (2,)}),
        ("unireplknet_a", {"dims": (4,), "depths": (1,), "large_every": (0,)}),
    ],
)
def test_every_family_has_gradcam_and_what_else_it_has(name, fields, photo, tmp_path):
    if name == "pvt_v2_b0":
        fields = {**fields, "ffn_ratios": (2,)}
    model = create_model(name, num_classes=5, **fields)
    side = 56 if name.startswith("swin") else 32
    out = tmp_path / "out"
    assert main([write(tmp_path / "m", model, side), photo, "--out", str(out)]) == 0
    methods = {path.name.split(".")[1] for path in out.glob("01_*.png")}
    rollout = {"rollout"} if name.startswith(("deit", "swin")) else set()
    assert methods == {"gradcam", "occlusion", *rollout}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "lime"], "Unknown methods ['lime']; allowed: gradcam, occlusion, gates"),
        (["--label", "dog"], "There is no class 'dog'; give a number from 0 to 5 or a name"),
    ],
)
def test_mistakes_end_in_one_readable_line(folder, photo, tmp_path, arguments, message, capsys):
    assert main([folder, photo, "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
