"""What the extras would do, where they are not installed: an error that names them."""

import sys

import numpy as np
import pytest
from small_models import small_model, small_state_dict

from lska_jax import create_model
from lska_jax.weights import checkpoint_file, export_checkpoint, import_checkpoint
from lska_jax.weights.conversion import stored
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import write_model_folder
from lska_jax.weights.pretrained import arrays_of


@pytest.fixture
def without_extras(monkeypatch):
    for name in ("torch", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_pth_file_names_the_extra(without_extras, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02}.")
    with pytest.raises(ImportError, match=r"pip install 'lska-jax\[torch\]'"):
        import_checkpoint(path, tmp_path / "out")


def test_writing_a_pth_file_names_the_extra_and_leaves_nothing(without_extras, tmp_path):
    model = small_model()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    folder = write_model_folder(tmp_path / "model", facts, arrays_of(model))
    with pytest.raises(ImportError, match=r"lska-jax\[torch\].*safetensors"):
        export_checkpoint(folder, tmp_path / "a.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_hub_id_names_the_extra_and_what_to_download_by_hand(without_extras):
    with pytest.raises(ImportError, match=r"pip install 'lska-jax\[hub\]'") as refusal:
        create_model(pretrained="hf-hub:someone/van@v1")
    place = "https://huggingface.co/someone/van/resolve/v1"
    assert f"download {place}/config.json and {place}/model.safetensors" in str(refusal.value)


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda w: w, ""),
        (lambda w: {"state_dict": w, "epoch": 3}, "Took state_dict; not read: epoch."),
        (lambda w: {"model": {"state_dict": w}}, ""),
        (lambda w: {"state_dict_ema": w}, "holds averaged weights only (state_dict_ema)"),
        (lambda w: {"state_dict": {f"module.{n}": a for n, a in w.items()}}, ""),
    ],
)
def test_nestings_are_opened_without_pytorch_too(monkeypatch, tmp_path, wrap, note):
    state_dict = small_state_dict()
    content = wrap({name: stored(array) for name, array in state_dict.items()})
    monkeypatch.setattr(checkpoint_file, "open_torch", lambda path: content)
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80")
    opened = checkpoint_file.open_checkpoint(path)
    assert opened.arrays.keys() == state_dict.keys()
    assert note in " ".join(opened.notes)
    np.testing.assert_array_equal(opened.arrays["head.bias"].read(), state_dict["head.bias"])
