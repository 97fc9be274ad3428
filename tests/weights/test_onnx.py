"""Models as ONNX: what other engines compute is what the model does, for any batch.

Most of it runs where onnx, onnxruntime and OpenVINO are installed: pip install ".[onnx,openvino]".
"""

import collections
import json
import sys

import golden_weights
import jax
import numpy as np
import pytest
from families import RECORDS
from flax import nnx
from PIL import Image
from small_models import ONE_BLOCK, small_model, small_state_dict

from lska_jax import create_model
from lska_jax.commands.export import main as export
from lska_jax.commands.predict import main as predict
from lska_jax.models.build import build
from lska_jax.nn.functional import assign, parameters
from lska_jax.tasks.engines import load_network, read_onnx_file
from lska_jax.weights import ModelFacts, load_state_dict, write_model_folder
from lska_jax.weights.export_onnx import export_onnx
from lska_jax.weights.pretrained import arrays_of

# Float32 rounding of a folded network in another engine.
TOLERANCE = 1e-5
CONFIGS = {
    f"{record.model} {variant or ''}": (record.config(**variant), record.side)
    for record in RECORDS
    for variant in ({}, *record.variants)
}


def trained(attention: str = "lska", **config):
    model = small_model(attention, k=7, **config)
    load_state_dict(model, small_state_dict(attention, k=7, **config))
    model.eval()
    return model


def folder_of(model, path, **facts):
    prepared = model.preprocessing._replace(image_size=40)
    facts = ModelFacts(config=model.config, preprocessing=prepared, **facts)
    return write_model_folder(path, facts, arrays_of(model))


def assert_computes(run, model, side: int) -> None:
    expected = jax.jit(lambda x: model(x))
    for batch in (1, 2, 5):
        images = golden_weights.images(batch, side, side)
        logits = np.asarray(expected(images))
        assert np.abs(run(images) - logits).max() < TOLERANCE * np.abs(logits).max()


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request):
    """Return an engine that is installed, with what writes files for it."""
    for package in ("onnx", "onnxruntime", request.param):
        pytest.importorskip(package, reason="ONNX needs onnx, onnxruntime, openvino")
    return request.param


@pytest.mark.parametrize("attention", ["lska", "lka", "lska_trivial", "lka_trivial"])
def test_a_van_of_every_attention_computes_the_same(engine, attention):
    model = trained(attention)
    assert_computes(load_network(export_onnx(model, image_size=40), engine), model, 40)


@pytest.mark.parametrize("case", CONFIGS)
def test_a_network_of_every_family_computes_the_same(engine, case):
    config, side = CONFIGS[case]
    model = build(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    noise = {path: 0.1 * rng.standard_normal(a.shape) for path, a in parameters(model).items()}
    assign(model, {p: (a + noise[p]).astype(np.float32) for p, a in parameters(model).items()})
    model.eval()
    assert_computes(load_network(export_onnx(model, image_size=side), engine), model, side)


def test_a_van_of_other_kernels_in_each_stage_computes_the_same(engine):
    sizes = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "num_classes": 3}
    mixed = {"k": (7, 11), "attention": ("lka", "lska")}
    model = create_model("van_lska_tiny", **sizes, **mixed)
    model.eval()
    assert_computes(load_network(export_onnx(model, image_size=40), engine), model, 40)


def test_a_vans_maps_are_moved_only_for_its_layer_norms():
    onnx = pytest.importorskip("onnx", reason="ONNX needs onnx, onnxruntime")
    pytest.importorskip("onnxruntime", reason="ONNX needs onnx, onnxruntime")
    graph = onnx.load_model_from_string(export_onnx(trained(**ONE_BLOCK), image_size=40)).graph
    counts = collections.Counter(node.op_type for node in graph.node)
    norms = counts["LayerNormalization"]
    # To them and back, but for the last; and the images.
    assert counts["Transpose"] == 2 * norms
    assert {"Gelu", "Conv"} <= set(counts)
    assert not {"Erf", "Einsum", "Expand"} & set(counts)


def test_predict_says_the_same_with_every_engine(engine, tmp_path, capsys):
    folder = folder_of(trained(), tmp_path / "model", class_names=tuple("abcdef"))
    onnx = tmp_path / "model.onnx"
    assert export([str(folder), "--onnx", str(onnx)]) == 0
    assert "any batch" in capsys.readouterr().out
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in ("1.png", "2.png"):
        Image.fromarray(rng.integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(photos / name)

    def said(*options: str) -> list[dict]:
        out = tmp_path / "said.json"
        assert predict([*options, "--output", str(out), "--top", "6"]) == 0
        return [one["top"] for one in json.loads(out.read_text())["predictions"]]

    for views in ("one", "flip", "ten"):
        options = (str(photos), "--views", views)
        expected = said(str(folder), *options)
        for place in (folder, onnx):
            found = said(str(place), *options, "--engine", engine)
            for image, wanted in zip(found, expected, strict=True):
                assert [s["name"] for s in image] == [s["name"] for s in wanted]
                np.testing.assert_allclose(
                    [s["probability"] for s in image],
                    [s["probability"] for s in wanted],
                    rtol=1e-4,
                )


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="ONNX needs onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match="broken.onnx is no ONNX file, or is damaged"):
        read_onnx_file(broken)
    graph = onnx.helper.make_graph([], "empty", [], [])
    broken.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="lska-jax export did not write it"):
        read_onnx_file(broken)


def test_without_its_packages_the_export_says_how_to_install_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    folder = folder_of(trained(**ONE_BLOCK), tmp_path / "model")
    assert export([str(folder), str(tmp_path / "a.onnx")]) == 2
    assert "pip install onnx onnxruntime" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_an_engine_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    photo = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(photo)
    assert predict([str(tmp_path), str(photo), "--engine", "openvino"]) == 2
    assert "pip install onnx openvino" in capsys.readouterr().err


def test_an_onnx_file_is_no_model_of_jax(tmp_path, capsys):
    (tmp_path / "a.onnx").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    assert predict([str(tmp_path / "a.onnx"), str(tmp_path / "1.png")]) == 2
    assert "is for another engine: onnxruntime or openvino" in capsys.readouterr().err


def test_one_file_to_write_is_named_once(tmp_path, capsys):
    for words in ([], ["a.onnx", "--onnx", "b.onnx"]):
        assert export([str(tmp_path), *words]) == 2
        assert "Give one file to write: OUT, or --onnx FILE." in capsys.readouterr().err
    assert export([str(tmp_path), "--onnx", "a.pth"]) == 2
    assert "--onnx a.pth must end in .onnx" in capsys.readouterr().err
