"""Models as ONNX: what other engines compute is what the model does, for any batch.

Most of it runs where onnx, onnxruntime and OpenVINO are installed: pip install ".[onnx,openvino]".
"""

import collections
import importlib
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
    for package in ("onnx", request.param):
        pytest.importorskip(package, reason="ONNX needs onnx, and onnxruntime or openvino")
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


DAMAGED = {
    "a list": (lambda record: [], "holds no JSON object"),
    "no object": (lambda record: "record", "holds no JSON object"),
    "a list inside": (lambda record: record | {"architecture": [1]}, "is damaged"),
    "nothing inside": (lambda record: {}, "has no 'architecture'"),
    "another size": (
        lambda record: record | {"preprocessing": record["preprocessing"] | {"image_size": 48}},
        "images (batch, 48, 48, 3), its network takes [[0, 40, 40, 3]]",
    ),
    "fewer classes": (
        lambda record: record | {"architecture": record["architecture"] | {"num_classes": 5}},
        "output is (1, 6); for 1 images and the 5 classes",
    ),
    "more classes": (
        lambda record: record | {"architecture": record["architecture"] | {"num_classes": 7}},
        "output is (1, 6); for 1 images and the 7 classes",
    ),
}


@pytest.fixture
def said(engine, tmp_path, capfd):
    """Return what `predict` says of a small model's file that was changed: (change) -> stderr.

    A change takes onnx's model and returns whether it keeps the hash, which is taken away else.
    """
    onnx = importlib.import_module("onnx")
    Image.new("RGB", (50, 60)).save(tmp_path / "1.png")

    def refused(change, *, status: int = 2) -> str:
        model = onnx.load_model_from_string(export_onnx(trained(**ONE_BLOCK), image_size=40))
        if not change(model):
            del model.metadata_props[1]
        file = tmp_path / "a.onnx"
        file.write_bytes(model.SerializeToString())
        assert predict([str(file), str(tmp_path / "1.png"), "--engine", engine]) == status
        said = capfd.readouterr()
        assert said.out == "" and len(said.err.splitlines()) == 1
        return said.err

    return refused


@pytest.mark.parametrize("damage", DAMAGED)
def test_metadata_that_fits_no_network_is_refused(said, damage):
    change, message = DAMAGED[damage]

    def write(model):
        texts = model.metadata_props[0]
        texts.value = json.dumps(change(json.loads(texts.value)))

    error = said(write)
    assert message in error and "Export it again: lska-jax export" in error


def test_metadata_too_deep_to_read_is_refused(said):
    def nest(model):
        model.metadata_props[0].value = "[" * 200_000

    assert "a.onnx is damaged" in said(nest)


def test_a_graph_that_the_engine_cannot_load_is_refused(said, engine):
    def rename(model):
        model.graph.node[1].op_type = "Nothing"

    def shorten(model):
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        tensor.raw_data = tensor.raw_data[:-4]

    for change in (rename, shorten):
        error = said(change)
        assert f"{engine} cannot load" in error and "a.onnx: " in error
        assert "export it again with lska-jax export" in error


def test_a_graph_that_the_engine_cannot_run_is_refused(said, engine):
    def claim(model):
        # What it says of the batch is not so: the network is for two images.
        helper = importlib.import_module("onnx.helper")
        node, last = model.graph.node[-1], model.graph.node[-1].output[0]
        node.output[0] = "before"
        two = helper.make_tensor("two", 7, [2], [2, 6])
        model.graph.initializer.append(two)
        model.graph.node.append(helper.make_node("Reshape", ["before", "two"], [last]))

    assert f"{engine} cannot run" in said(claim)


def test_a_flipped_bit_in_a_weight_is_found(said):
    def flip(model):
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])
        return True

    error = said(flip)
    assert "a.onnx is not the file that was exported: its SHA-256 is" in error
    assert "Export it again" in error


@pytest.mark.parametrize("hash_of_the_file", ["", "0" * 64, "no hash"])
def test_a_damaged_hash_is_found(said, hash_of_the_file):
    def change(model):
        model.metadata_props[1].value = hash_of_the_file
        return True

    assert "is not the file that was exported" in said(change)


def test_logits_that_are_not_finite_are_a_problem_of_the_image(said):
    def spoil(model):
        for tensor in model.graph.initializer:
            if tensor.data_type == 1 and len(tensor.raw_data) >= 16:
                tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, "<f4").tobytes()

    assert "1.png: the model's outputs for it are not finite" in said(spoil, status=1)


def test_a_file_without_a_hash_is_taken_as_it_is(engine, tmp_path):
    onnx = importlib.import_module("onnx")
    data = export_onnx(trained(**ONE_BLOCK), image_size=40)
    model = onnx.load_model_from_string(data)
    (tmp_path / "new.onnx").write_bytes(data)
    del model.metadata_props[1]
    (tmp_path / "old.onnx").write_bytes(model.SerializeToString())
    (new, _), (old, _) = (read_onnx_file(tmp_path / name) for name in ("new.onnx", "old.onnx"))
    assert new == old


def test_one_engine_is_enough_to_export_and_to_predict_from_a_folder(
    engine, tmp_path, capsys, monkeypatch
):
    other = {"onnxruntime": "openvino", "openvino": "onnxruntime"}[engine]
    monkeypatch.setitem(sys.modules, other, None)
    folder = folder_of(trained(**ONE_BLOCK), tmp_path / "model")
    assert export([str(folder), "--onnx", str(tmp_path / "a.onnx")]) == 0
    assert f"compared with the model in {engine}" in capsys.readouterr().out
    Image.new("RGB", (50, 60)).save(tmp_path / "1.png")
    assert predict([str(folder), str(tmp_path / "1.png"), "--engine", engine]) == 0


def test_without_its_packages_the_export_says_how_to_install_them(tmp_path, capsys, monkeypatch):
    # Before the model is read, which is damaged.
    folder = folder_of(trained(**ONE_BLOCK), tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"")
    for missing in (("onnx",), ("onnxruntime", "openvino")):
        with monkeypatch.context() as context:
            for package in missing:
                context.setitem(sys.modules, package, None)
            assert export([str(folder), str(tmp_path / "a.onnx")]) == 2
        assert "pip install onnx onnxruntime, or onnx openvino" in capsys.readouterr().err
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
