"""PyTorch's own files. They need PyTorch, which the tests' requirements leave out."""

import argparse
import os
import zipfile

import golden_weights
import numpy as np
import pytest
import toy_family  # noqa: F401  (registers its models)
from published_folders import timm_folder, toy_state_dict
from small_models import detection_name, small_state_dict

from lska_jax.commands.convert import main
from lska_jax.weights import export_checkpoint, import_checkpoint, read_model_folder
from lska_jax.weights.conversion import stored
from lska_jax.weights.torch_file import open_torch

torch = pytest.importorskip("torch", reason="reading .pth files needs the extra 'torch'")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pth.tar"


def tensors(state_dict=None) -> dict:
    given = small_state_dict() if state_dict is None else state_dict
    return {name: torch.from_numpy(np.array(array)) for name, array in given.items()}


def arrays_from(path, out, **options) -> dict[str, np.ndarray]:
    import_checkpoint(path, out, report=lambda line: None, **options)
    return read_model_folder(out)[1]


def assert_holds(arrays, state_dict):
    np.testing.assert_array_equal(arrays["classifier/bias"], state_dict["head.bias"])
    given = state_dict["block2.1.mlp.dwconv.dwconv.weight"]
    loaded = arrays["stages/1/blocks/1/ffn/depthwise/kernel"]
    np.testing.assert_array_equal(loaded[:, :, 0, 3], given[3, 0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3, "arch": "van", "metric": None},
        lambda weights: {"model": weights},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {"state_dict_ema": weights},
        lambda weights: {"state_dict": {f"module.{n}": t for n, t in weights.items()}},
        lambda weights: {
            "state_dict": {f"backbone.{detection_name(n)}": t for n, t in weights.items()}
        },
        lambda weights: {
            "state_dict": {n: torch.nn.Parameter(t.float()) for n, t in weights.items()}
        },
    ],
    ids=["plain", "timm", "model", "nested", "ema", "module", "backbone", "parameters"],
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_weights_are_found_in_every_nesting_and_format(path, out, wrap, is_zip):
    torch.save(wrap(tensors()), path, _use_new_zipfile_serialization=is_zip)
    assert_holds(arrays_from(path, out), small_state_dict())


def test_trained_weights_are_the_default_and_averaged_ones_an_option(path, out, tmp_path):
    weights = tensors()
    averaged = {name: 2 * tensor for name, tensor in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": averaged}, path)
    lines: list[str] = []
    import_checkpoint(path, out, report=lines.append)
    assert any("also holds averaged weights (state_dict_ema); --ema takes them" in x for x in lines)
    bias = small_state_dict()["head.bias"]
    np.testing.assert_array_equal(read_model_folder(out)[1]["classifier/bias"], bias)
    ema = arrays_from(path, tmp_path / "ema", use_ema=True)
    np.testing.assert_array_equal(ema["classifier/bias"], 2 * bias)


def test_averaged_weights_that_are_not_there_are_an_error(path, out):
    torch.save({"state_dict": tensors()}, path)
    with pytest.raises(ValueError, match=r"holds no averaged weights.*Leave out --ema"):
        import_checkpoint(path, out, use_ema=True)


def test_a_file_of_averaged_weights_alone_is_recorded_as_such(path, out):
    torch.save({"state_dict_ema": tensors()}, path)
    assert import_checkpoint(path, out).source["weights"] == "averaged"


def test_pytorchs_averaged_model_is_read_past_its_counter(path, out):
    averaged = {f"module.{name}": array for name, array in tensors().items()}
    averaged["n_averaged"] = torch.tensor(3)
    torch.save({"model": tensors(), "model_ema": averaged, "epoch": 3}, path)
    assert_holds(arrays_from(path, out, use_ema=True), small_state_dict())


def test_a_folder_of_timm_may_hold_a_pickled_file_alone(tmp_path):
    folder = timm_folder(tmp_path / "toy", classes=5)
    (folder / "model.safetensors").unlink()
    weights = toy_state_dict(5)
    as_tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(as_tensors, folder / "pytorch_model.bin")
    facts, arrays = read_model_folder(folder)
    assert facts.source["file"] == "pytorch_model.bin"
    np.testing.assert_array_equal(arrays["classifier/bias"], weights["fc.bias"])


def test_what_timm_saves_beside_the_weights_is_harmless(path, out):
    beside = {"args": argparse.Namespace(lr=1e-3), "metric": np.float64(75.0), "epoch": np.int64(9)}
    torch.save({"state_dict": tensors(), **beside}, path)
    assert_holds(arrays_from(path, out), small_state_dict())


def test_tensors_in_odd_memory_are_read_right(path, out):
    weights = tensors()
    name = "block1.0.attn.proj_1.weight"
    weights[name] = weights[name].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    weights["head.bias"] = torch.tensor(3.0).expand(6)
    torch.save(weights, path)
    arrays = arrays_from(path, out)
    given = small_state_dict()[name][:, :, 0, 0].T
    np.testing.assert_array_equal(arrays["stages/0/blocks/0/attention/proj_in/kernel"], given)
    np.testing.assert_array_equal(arrays["classifier/bias"], np.full(6, 3, np.float32))


class Harmful:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickle_with_code_is_refused_and_not_run(path, out, tmp_path, is_zip):
    marker = tmp_path / "was_run"
    content = {"state_dict": tensors(), "extra": Harmful(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"holds code \(.*mkdir\), which was not run"):
        import_checkpoint(path, out)
    assert not marker.exists() and not out.exists()


def test_a_whole_pickled_model_is_refused_as_code(path, out):
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"holds code \(torch.nn.modules.linear.Linear\)"):
        import_checkpoint(path, out)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, out, is_zip, kept):
    torch.save(tensors(), path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match="truncated"):
        import_checkpoint(path, out)


def test_a_flipped_bit_among_the_weights_is_refused(path, out):
    torch.save(tensors(), path)
    data = bytearray(path.read_bytes())
    place = data.find(small_state_dict()["head.weight"].tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the checksum of .* is wrong"):
        import_checkpoint(path, out)


def test_a_path_that_leaves_the_archive_is_refused(path, out):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped", b"x")
    with pytest.raises(ValueError, match="path leaves the archive"):
        import_checkpoint(path, out)


def test_an_archive_with_a_member_twice_is_refused(path, out):
    torch.save(tensors(), path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"x")
    with pytest.raises(ValueError, match=r"holds these twice: a\.pth/data.pkl"):
        import_checkpoint(path, out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {7: w["head.bias"]}, "names of arrays must be text, got 7"),
        (lambda w: w | {"head.bias": "text"}, r"these are no tensors:\n  head.bias \(str\)"),
        (lambda w: w | {"head.bias": w["head.bias"].long()}, "head.bias: dtype int64"),
        (lambda w: w | {"head.bias": w["head.bias"].cfloat()}, "head.bias: dtype complex64"),
        (lambda w: w | {"head.bias": w["head.bias"].to_sparse()}, "float32 .sparse_coo."),
        (
            lambda w: w | {"head.bias": w["head.bias"].to(torch.float8_e4m3fn)},
            r"holds quantised weights: 1 arrays such as head.bias \(float8_e4m3fn\)",
        ),
        (lambda w: w | {"head.bias": torch.tensor(1.0)}, r"head.bias: \(\), expected \(6,\)"),
        (lambda w: w | {"head.bias": torch.zeros(0)}, r"head.bias: \(0,\), expected \(6,\)"),
        (lambda w: {}, "holds an empty state_dict"),
        (lambda w: [1, 2], "holds a list, no state_dict"),
        (lambda w: {"optimizer": {"state": {}}}, "these are no tensors"),
    ],
)
def test_odd_content_is_refused_by_name(path, out, change, message):
    torch.save(change(tensors()), path)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(path, out)


def test_import_after_export_is_bit_identical(tmp_path, out, path):
    torch.save(tensors(), path)
    first = arrays_from(path, out)
    exported = tmp_path / "exported.pth"
    assert export_checkpoint(out, exported) == []
    state_dict = torch.load(exported, weights_only=True)
    assert list(state_dict) == list(small_state_dict())
    assert state_dict["patch_embed1.norm.num_batches_tracked"].dtype == torch.int64
    again = arrays_from(exported, tmp_path / "again")
    assert all(np.array_equal(again[path], first[path]) for path in first)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        out / "model.safetensors"
    ).read_bytes()


def test_the_golden_checkpoint_is_imported_by_the_command(tmp_path, out, capsys):
    keys = golden_weights.keys("lska_tiny_k23")
    weights = tensors({n: np.asarray(golden_weights.weight(n, s)) for n, s in keys.items()})
    path = tmp_path / "van_tiny.pth.tar"
    torch.save({"state_dict": weights}, path)
    command = [str(path), "--model", "van_lska_tiny", "--k", "23", "--out", str(out)]
    assert main(command) == 0
    assert "van_lska_tiny, k=23, 1000 classes, 4,029,000 parameters" in capsys.readouterr().out
    facts, arrays = read_model_folder(out)
    assert facts.name == "van_lska_tiny"
    np.testing.assert_array_equal(arrays["classifier/kernel"], weights["head.weight"].numpy().T)


def test_tensors_become_arrays_only_when_they_are_read(path):
    torch.save({"a": torch.ones(3, dtype=torch.bfloat16)}, path)
    array = open_torch(path)["a"]
    assert (array.shape, array.dtype) == ((3,), "bfloat16")
    np.testing.assert_array_equal(array.read(), stored(np.ones(3, np.float32)).read())
