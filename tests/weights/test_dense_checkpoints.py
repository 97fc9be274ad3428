"""Whole detectors and segmentors: checkpoints with class names, and programs for any batch."""

import golden_weights
import jax.export
import numpy as np
import pytest
from flax import nnx
from golden_baselines import arrays_of_config
from small_segmentation import small_segmentor

from lska_jax import create_model
from lska_jax.commands.convert import main as import_main
from lska_jax.commands.export import main as export_main
from lska_jax.weights import ModelFacts, read_facts, write_model_folder
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.state_dict import name_arrays

pytestmark = pytest.mark.slow

SMALL = {"dims": (4, 4, 6, 6), "depths": (1, 1, 1, 1), "ffn_ratios": (2, 2, 2, 2), "k": 11}
HEADS = {
    "retinanet": {"pyramid_channels": 8, "tower_depth": 1, "candidates": 20, "max_detections": 10},
    "mask_rcnn": {
        **{"pyramid_channels": 8, "hidden_channels": 8, "mask_depth": 1, "test_candidates": 16},
        **{"proposals": 8, "max_detections": 10},
    },
}


def test_a_checkpoint_of_the_reference_is_imported_with_its_names_and_colours(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="reading .pth files needs the extra 'torch'")
    config = small_segmentor(num_classes=2)
    arrays = arrays_of_config(config)
    named = name_arrays(config, arrays)
    meta = {"epoch": 12, "CLASSES": ("sky", "sea"), "PALETTE": [[6, 230, 230], [9, 7, 230]]}
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in named.items()}
    torch.save({"meta": meta, "state_dict": tensors, "optimizer": {}}, tmp_path / "latest.pth")
    assert import_main([str(tmp_path / "latest.pth"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "not read: optimizer." in said and "the 2 names and colours in the file" in said
    facts = read_facts(tmp_path / "out")
    assert facts.class_names == ("sky", "sea")
    assert facts.class_colors == ((6, 230, 230), (9, 7, 230))
    assert facts.description.startswith("Semantic FPN")


@pytest.mark.parametrize("head", HEADS)
def test_a_detector_is_exported_as_a_program_that_returns_plain_arrays(tmp_path, head, capsys):
    section = {"name": head, **HEADS[head]}
    model = create_model("van_lska_tiny", head=section, num_classes=5, rngs=nnx.Rngs(0), **SMALL)
    model.eval()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    folder = write_model_folder(tmp_path / "model", facts, arrays_of(model))
    out = tmp_path / "detector.jaxexport"
    assert export_main([str(folder), str(out), "--image_size", "64x96"]) == 0
    assert "images (batch, 64, 96, 3) float32" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    for batch in (1, 3):
        images = golden_weights.images(batch, 64, 96)
        found, expected = exported.call(images), model(images)._asdict()
        assert set(found) == {name for name, array in expected.items() if array is not None}
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name], atol=1e-3)
