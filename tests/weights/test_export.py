"""Models written for others: PyTorch names in safetensors, and jax.export for any backend."""

import golden_weights
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file
from small_models import ONE_BLOCK, detection_name, small_model, small_state_dict

from lska_jax import VAN
from lska_jax.commands.export import main
from lska_jax.weights import (
    ModelFacts,
    export_checkpoint,
    export_jax,
    export_model,
    import_checkpoint,
    load_state_dict,
    write_model_folder,
)
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.safetensors_file import save_safetensors


def trained(attention: str = "lska", **config) -> VAN:
    model = small_model(attention, **config)
    load_state_dict(model, small_state_dict(attention, **config))
    model.eval()
    return model


def folder_of(model: VAN, path):
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    return write_model_folder(path, facts, arrays_of(model))


@pytest.mark.parametrize(
    ("attention", "naming"),
    [
        ("lska", "reference"),
        ("lska", "detection"),
        ("lka", "hugging_face"),
        ("lska_trivial", "reference"),
    ],
)
def test_import_after_export_gives_the_same_bytes(tmp_path, attention, naming):
    folder = folder_of(trained(attention), tmp_path / "model")
    exported = tmp_path / "exported.safetensors"
    export_checkpoint(folder, exported, naming=naming)
    import_checkpoint(exported, tmp_path / "again", report=lambda line: None)
    first, again = (f / "model.safetensors" for f in (folder, tmp_path / "again"))
    assert again.read_bytes() == first.read_bytes()


def test_the_exported_names_and_values_are_the_references(tmp_path):
    state_dict = small_state_dict()
    folder = folder_of(trained(), tmp_path / "model")
    export_checkpoint(folder, tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == state_dict.keys()
    for name, array in state_dict.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(written[name], array, err_msg=name)
    assert written["patch_embed1.norm.num_batches_tracked"].dtype == np.int64
    export_checkpoint(folder, tmp_path / "b.safetensors", naming="detection")
    assert load_file(tmp_path / "b.safetensors").keys() == set(map(detection_name, state_dict))


# As long as a name may be, so that the file beside it cannot be made.
TOO_LONG = "x" * 240


def test_a_place_that_cannot_be_written_is_one_message(tmp_path, capsys):
    folder = str(folder_of(trained(), tmp_path / "model"))
    out = tmp_path / f"{TOO_LONG}.safetensors"
    assert main([folder, str(out)]) == 2
    assert f"File name too long: '{out}'" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"nowhere/a\.safetensors cannot be written: .*No such file"):
        save_safetensors(tmp_path / "nowhere" / "a.safetensors", {}, metadata={})


def test_it_is_found_out_before_the_work(tmp_path, monkeypatch, capsys):
    folder = str(folder_of(trained(), tmp_path / "model"))
    monkeypatch.setattr(export_jax, "export_model", lambda *_, **__: pytest.fail("worked"))
    assert main([folder, str(tmp_path / f"{TOO_LONG}.jaxexport")]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_what_the_other_code_has_to_be_told_is_said(tmp_path):
    folder = folder_of(trained(layer_norm_epsilon=1e-5, stem_stride=2), tmp_path / "model")
    notes = export_checkpoint(folder, tmp_path / "a.safetensors")
    assert "LayerNorm epsilon of this model is 1e-05, that of the reference code 1e-06" in notes[0]
    assert "stride of the first convolution is 2" in notes[1]


def test_the_command_refuses_in_one_line_and_keeps_what_is_there(tmp_path, capsys):
    folder = str(folder_of(trained(), tmp_path / "model"))
    kept = tmp_path / "kept.safetensors"
    kept.write_text("dear")
    for out, message in (
        (kept, "is there; choose another name"),
        (tmp_path / "a.txt", "names no format; allowed: .pth"),
    ):
        assert main([folder, str(out)]) == 2
        assert message in capsys.readouterr().err
    assert main([folder, str(tmp_path / "a.bin"), "--naming", "hugging_face"]) == 2
    assert "it has lka only" in capsys.readouterr().err
    assert kept.read_text() == "dear"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.safetensors", "model"]


@pytest.mark.parametrize("attention", ["lska", pytest.param("lka", marks=pytest.mark.slow)])
def test_one_artifact_for_all_backends_runs_any_batch_here(attention):
    model = trained(attention, depths=(1, 1))
    data = export_model(model, image_size=24).serialize()
    exported = jax.export.deserialize(data)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(exported.in_avals[0].shape) == "(batch, 24, 24, 3)"
    run = jax.jit(lambda x: model(x))
    for batch in (1, 3):
        images = golden_weights.images(batch, 24, 24)
        # Float32 rounding of a folded network in another formulation.
        expected = run(images)
        error = np.abs(exported.call(images) - expected).max()
        assert error < 1e-5 * np.abs(expected).max()


def test_the_export_command_writes_a_file_that_runs(tmp_path, capsys):
    model = trained(k=7, **ONE_BLOCK)
    folder = folder_of(model, tmp_path / "model")
    out = tmp_path / "van.jaxexport"
    assert main([str(folder), str(out), "--image_size", "16"]) == 0
    assert "images (batch, 16, 16, 3) float32" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    assert exported.call(golden_weights.images(2, 16, 16)).shape == (2, 6)
    assert main([str(folder), str(out)]) == 2
    assert "is there; choose another name" in capsys.readouterr().err
