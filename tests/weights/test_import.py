"""The import command on safetensors files; PyTorch's own files are in test_torch_file."""

import json
import struct

import golden_weights
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import detection_name, small_model, small_state_dict, write_safetensors

from lska_jax import create_model
from lska_jax.commands.convert import main
from lska_jax.weights import import_checkpoint, load_state_dict, read_model_folder
from lska_jax.weights.class_names import imagenet_names
from lska_jax.weights.pretrained import arrays_of

GATE = "block1.0.attn.spatial_gating_unit"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model"


def imported(path, out, **options):
    lines: list[str] = []
    facts = import_checkpoint(path, out, report=lines.append, **options)
    return facts, read_model_folder(out)[1], "\n".join(lines)


def refusal(tmp_path, state_dict, out, **options) -> str:
    """Return the message of a refused import, having seen that it left nothing behind."""
    path = write_safetensors(tmp_path / "refused.safetensors", state_dict)
    with pytest.raises(ValueError) as caught:
        import_checkpoint(path, out, report=print, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["refused.safetensors"]
    return str(caught.value)


def expected_arrays(state_dict, **config) -> dict[str, np.ndarray]:
    model = small_model(**config)
    load_state_dict(model, state_dict)
    return arrays_of(model)


def assert_same_arrays(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


@pytest.mark.parametrize("attention", ["lska", "lka", "lska_trivial", "lka_trivial"])
def test_architecture_and_weights_come_from_the_file_alone(tmp_path, out, attention):
    state_dict = small_state_dict(attention, k=35)
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    facts, arrays, _ = imported(path, out)
    assert facts.config == small_model(attention, k=35).config
    assert_same_arrays(arrays, expected_arrays(state_dict, attention=attention, k=35))


@pytest.mark.parametrize(
    ("attention", "prefix"),
    [
        *(("lska", "module."), ("lka", "backbone.")),
        *(("lska", "module.backbone."), ("lka", "model.module.")),
    ],
)
def test_detection_names_and_prefixes_give_the_same_arrays(tmp_path, out, prefix, attention):
    state_dict = small_state_dict(attention)
    renamed = {prefix + detection_name(name): array for name, array in state_dict.items()}
    path = write_safetensors(tmp_path / "a.safetensors", renamed)
    facts, arrays, _ = imported(path, out)
    assert_same_arrays(arrays, expected_arrays(state_dict, attention=attention))
    assert facts.config.layer_norm_epsilon == 1e-5


def test_a_detectors_other_parts_are_left_aside_and_named(tmp_path, out):
    state_dict = {
        "backbone." + detection_name(name): array
        for name, array in small_state_dict().items()
        if not name.startswith("head.")
    }
    state_dict |= {"neck.convs.0.weight": np.ones(3), "bbox_head.fc.bias": np.ones(2)}
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    facts, arrays, text = imported(path, out)
    assert facts.config.num_classes == 0 and "classifier/kernel" not in arrays
    assert "not read beside it: bbox_head (1), neck (1)" in text or "neck (1)" in text
    assert "There is no classifier in the file" in text
    assert facts.preprocessing.mean == (0.485, 0.456, 0.406)
    assert "PLEASE NOTE - preprocessing: ImageNet's" in text


def test_weights_of_the_family_outside_the_backbone_are_refused(tmp_path, out):
    state_dict = {f"backbone.{name}": array for name, array in small_state_dict().items()}
    state_dict["block1.0.layer_scale_1"] = np.ones(4, np.float32)
    message = refusal(tmp_path, state_dict, out)
    assert "others without: block1.0.layer_scale_1" in message


def test_a_classifier_beside_the_backbone_is_taken(tmp_path, out):
    state_dict = {
        name if name.startswith("head.") else f"backbone.{name}": array
        for name, array in small_state_dict().items()
    }
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    assert imported(path, out)[0].config.num_classes == 6


def test_hugging_faces_weights_give_the_golden_logits_and_a_loud_note(tmp_path, out):
    keys = golden_weights.keys("hf_lka_tiny")
    weights = {n: np.asarray(golden_weights.weight(n, s)) for n, s in keys.items()}
    path = write_safetensors(tmp_path / "model.safetensors", weights)
    facts, _, text = imported(path, out)
    assert facts.name == "van_lka_tiny" and facts.source["naming"] == "hugging_face"
    assert facts.preprocessing.mean == (0.5, 0.5, 0.5) and facts.preprocessing.crop_pct == 0.9
    assert "PLEASE NOTE - preprocessing: mean = std = 0.5" in text
    model = create_model(pretrained=out)
    model.eval()
    with np.load(golden_weights.GOLDEN / "hf_lka_tiny__96x96.npz") as stored:
        golden = stored["logits"]
    images = jnp.asarray(golden_weights.images(len(golden), 96, 96))
    # The weights are an argument: as constants they would be copied into the program.
    logits = nnx.jit(lambda model, images: model(images))(model, images)
    # Float32 rounding through 13 blocks; 2e-6 was seen.
    assert np.abs(logits - golden).max() < 1e-5 * np.abs(golden).max()


def test_hugging_faces_stated_preprocessing_can_be_asked_for(tmp_path, out):
    path = write_safetensors(tmp_path / "a.safetensors", small_state_dict("lka"))
    facts, _, text = imported(path, out, preprocessing="imagenet")
    assert facts.preprocessing.mean == (0.485, 0.456, 0.406)
    assert facts.preprocessing.crop_pct == 0.875
    assert "Preprocessing: imagenet, as asked for" in text


def test_the_reference_weights_have_mean_and_std_of_one_half(tmp_path, out):
    path = write_safetensors(tmp_path / "a.safetensors", small_state_dict())
    facts, _, text = imported(path, out)
    assert facts.preprocessing.mean == facts.preprocessing.std == (0.5, 0.5, 0.5)
    assert "mean = std = 0.5 and crop 0.9" in text


def test_a_thousand_classes_are_imagenets_unless_named_otherwise(tmp_path, out):
    path = write_safetensors(tmp_path / "a.safetensors", small_state_dict(num_classes=1000))
    facts, _, text = imported(path, out)
    assert facts.class_names == imagenet_names() and "ImageNet's 1000 classes" in text
    assert len(set(imagenet_names())) == 1000 and imagenet_names()[1] == "goldfish"


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_floating_dtypes_become_float32_and_it_is_said(tmp_path, out, dtype):
    state_dict = {
        name: array.astype(jnp.dtype(dtype)) if array.dtype == np.float32 else array
        for name, array in small_state_dict().items()
    }
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    _, arrays, text = imported(path, out)
    assert f"Converted from {dtype} to float32" in text
    np.testing.assert_array_equal(
        arrays["classifier/bias"], state_dict["head.bias"].astype(np.float32)
    )


def test_all_mismatches_are_listed_at_once(tmp_path, out):
    state_dict = small_state_dict()
    del state_dict["head.bias"], state_dict["block1.0.norm1.running_var"]
    state_dict["extra.weight"] = np.ones(3, np.float32)
    state_dict["block2.1.layer_scale_1"] = np.ones(7, np.float32)
    state_dict["norm1.weight"] = np.ones(4, np.int32)
    message = refusal(tmp_path, state_dict, out)
    assert "missing (2):" in message
    assert "head.bias" in message and "block1.0.norm1.running_var" in message
    assert "unexpected (1):\n  extra.weight" in message
    assert "block2.1.layer_scale_1: (7,), expected (6,)" in message
    assert "norm1.weight: dtype int32, expected floating point" in message


def test_another_model_than_the_files_is_refused_with_what_the_file_is(tmp_path, out):
    state_dict = small_state_dict()
    message = refusal(tmp_path, state_dict, out, model="van_lka_tiny", k=35)
    assert "does not fit van_lka_tiny, k=35" in message
    assert "attention lka, the file's shapes say lska" in message
    assert "k 35, the file's shapes say 23" in message
    assert "depths (3, 3, 5, 2), the file's shapes say (1, 2)" in message


def test_another_k_than_the_files_lists_every_kernel(tmp_path, out):
    message = refusal(tmp_path, small_state_dict(), out, k=35)
    assert "wrong shape or dtype (6):" in message
    assert f"{GATE}.conv_spatial_h.weight: (4, 1, 1, 7), expected (4, 1, 1, 11)" in message


def test_exchanged_horizontal_and_vertical_kernels_are_refused(tmp_path, out):
    state_dict = small_state_dict()
    for name in list(state_dict):
        if ".conv0h.weight" in name:
            other = name.replace("conv0h", "conv0v")
            state_dict[name], state_dict[other] = state_dict[other], state_dict[name]
    message = refusal(tmp_path, state_dict, out)
    assert f"{GATE}.conv0h.weight: (4, 1, 5, 1), expected (4, 1, 1, 5)" in message


def test_exchanged_local_and_dilated_kernels_are_no_other_k(tmp_path, out):
    def exchange(name: str) -> str:
        swapped = name.replace("conv0", "#").replace("conv_spatial_", "conv0")
        return swapped.replace("#", "conv_spatial_")

    state_dict = {exchange(name): array for name, array in small_state_dict().items()}
    message = refusal(tmp_path, state_dict, out)
    assert "kernels of size 7, then 5" in message and "Exchanged kernels look like this" in message


def test_another_dilation_is_imported_when_it_is_asked_for(tmp_path, out):
    state_dict = small_state_dict(k=35, dilation=2)
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    facts, _, _ = imported(path, out, dilation=2)
    assert (facts.config.k, facts.config.dilation) == (35, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_in_float32_are_named(tmp_path, out, value):
    state_dict = small_state_dict()
    state_dict["head.bias"] = state_dict["head.bias"].astype(np.float64)
    state_dict["head.bias"][2] = value
    message = refusal(tmp_path, state_dict, out)
    assert "head.bias: 1 of 6 values are not finite" in message


def test_a_negative_variance_is_named(tmp_path, out):
    state_dict = small_state_dict()
    state_dict["block1.0.norm1.running_var"][:2] = -1
    assert "running_var: 2 variances are negative" in refusal(tmp_path, state_dict, out)


def test_one_array_under_two_names_is_refused(tmp_path, out):
    state_dict = small_state_dict()
    state_dict["blocks1.0.norm1.bias"] = state_dict["block1.0.norm1.bias"]
    message = refusal(tmp_path, state_dict, out)
    assert "given twice under two names (1):" in message
    assert "block1.0.norm1.bias and blocks1.0.norm1.bias" in message


def test_a_header_that_names_an_array_twice_is_refused(tmp_path, out):
    entry = '"head.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{entry},{entry}}}".encode()
    path = tmp_path / "twice.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match="names these twice in its header: head.bias"):
        import_checkpoint(path, out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar archive"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "no intact safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints_are_called_by_what_they_are(tmp_path, out, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(path, out)


def test_a_folder_is_refused_with_the_checkpoints_in_it(tmp_path, out):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"is a folder.*model\.safetensors"):
        import_checkpoint(tmp_path, out)


def test_a_wrong_hash_of_the_file_is_refused(tmp_path, out):
    path = write_safetensors(tmp_path / "a.safetensors", small_state_dict())
    with pytest.raises(ValueError, match="fetch it again"):
        import_checkpoint(path, out, sha256="0" * 64)


def test_a_folder_that_is_not_empty_is_kept(tmp_path, out):
    path = write_safetensors(tmp_path / "a.safetensors", small_state_dict())
    out.mkdir()
    (out / "thesis.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="is not empty"):
        import_checkpoint(path, out)
    with pytest.raises(FileExistsError, match=r"no model folder \(thesis.txt\)"):
        import_checkpoint(path, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "dear"


def test_the_command_writes_a_folder_that_says_everything(tmp_path, out, capsys):
    state_dict = small_state_dict(k=11)
    path = write_safetensors(tmp_path / "a.safetensors", state_dict)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdef"))
    arguments = [str(path), "--out", str(out), "--labels", str(labels), "--license", "apache-2.0"]
    assert main([*arguments, "--source", "an example"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["architecture"]["k"] == 11 and config["labels"] == list("abcdef")
    assert config["license"] == "apache-2.0" and config["source"]["origin"] == "an example"
    assert len(config["weights"]["sha256"]) == 64
    card = (out / "README.md").read_text()
    assert config["weights"]["sha256"] in card and "0.5, 0.5, 0.5" in card
    assert "create_model(pretrained=" in capsys.readouterr().out


def test_the_command_ends_in_one_readable_message(tmp_path, out, capsys):
    assert main([str(tmp_path / "none.pth"), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"Error: There is no file {tmp_path / 'none.pth'}.\n"
