"""The table of published weights, and putting a folder on the Hub."""

import csv
import hashlib
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import hub_server
import pytest
from small_models import small_model

from lska_jax.commands import publish, weights
from lska_jax.models.build import abstract_model
from lska_jax.models.weight_tags import find_tag
from lska_jax.nn.functional import parameters
from lska_jax.weights.catalogue import OUTPUTS, list_entries
from lska_jax.weights.hub import _check_hashes
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_facts, write_model_folder
from lska_jax.weights.pretrained import arrays_of

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def write_model(root: Path) -> Path:
    model = small_model()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    return write_model_folder(root / "model", facts, arrays_of(model))


def test_every_published_set_of_weights_is_in_the_table():
    entries = [entry for entry in list_entries() if entry.tag]
    assert len({entry.name for entry in entries}) == len(entries) >= 89
    assert all(entry.place and entry.parameters > 1e6 for entry in entries)
    assert all(entry.top1 is None or 50 < entry.top1 < 95 for entry in entries)
    (tiny,) = list_entries(["convnext_tiny.fb_in1k"])
    assert (tiny.parameters, tiny.top1, tiny.top1_of) == (28_589_128, 82.066, "timm")
    assert find_tag(tiny.name) == tiny.tag


def test_what_comes_with_the_package_is_in_the_table_as_its_folder_says(capsys):
    (entry,) = list_entries(["cifar10"])
    facts = read_facts("box:cifar10")
    assert entry == next(iter(list_entries())) and entry.tag is None
    assert (entry.num_classes, entry.license) == (facts.config.num_classes, facts.license)
    assert entry.preprocessing == facts.preprocessing
    assert entry.top1 == 100 * facts.source["eval/top1"]
    assert entry.parameters == sum(map(math.prod, parameter_shapes(facts.config)))
    assert weights.main(["cifar10"]) == 0
    printed = capsys.readouterr().out
    assert f"[{entry.top1:.1f}]" in printed and "comes with the package" in printed
    assert f"Images: mean {facts.preprocessing.mean[0]:g}, " in printed
    assert weights.main(["cifar10", "--download"]) == 0
    assert "cifar10 comes with the package." in capsys.readouterr().out


def parameter_shapes(config) -> list[tuple[int, ...]]:
    return [array.shape for array in parameters(abstract_model(config)).values()]


def test_what_was_compared_here_is_what_has_golden_outputs():
    named = {file.name.partition("__")[0] for file in GOLDEN.glob("*__*.npz")}
    van = {"lka_tiny", "lka_small", "lska_tiny", "lska_small"}
    golden = {f"van_{name}" for name in van} | {n for n in named if "lska" not in n} - {
        *("lka_tiny", "lka_small", "hf_lka_tiny")
    }
    compared = {entry.model for entry in list_entries() if entry.checked == OUTPUTS}
    tagged = {entry.model for entry in list_entries()}
    assert compared == golden & tagged


def test_the_command_prints_a_table_and_writes_a_file(tmp_path, capsys):
    assert weights.main(["pvt_v2_b0", "convnext_tiny.fb_*"]) == 0
    printed = capsys.readouterr().out
    assert "pvt_v2_b0.in1k" in printed and "timm/convnext_tiny.fb_in1k" in printed
    assert "224/0.9 imagenet" in printed and "384/squash imagenet" in printed
    assert weights.main(["van_*", "--csv", str(tmp_path / "table.csv")]) == 0
    with (tmp_path / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["van_lka_base.in1k"]["mean"] == "0.5 0.5 0.5"
    assert weights.main(["vgg16"]) == 2
    assert "No published weights match 'vgg16'" in capsys.readouterr().err


def test_files_of_the_cache_are_compared_with_the_hashes_they_are_stored_under(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    large, small = b"weights", b"{}"
    names = {
        "model.safetensors": (hashlib.sha256(large).hexdigest(), large),
        "config.json": (hashlib.sha1(b"blob 2\0{}").hexdigest(), small),
    }
    for name, (stored, content) in names.items():
        (blobs / stored).write_bytes(content)
        (snapshot / name).symlink_to(blobs / stored)
    _check_hashes(snapshot)
    for name, (stored, content) in names.items():
        (blobs / stored).write_bytes(b"other")
        with pytest.raises(ValueError, match=f"{name} is not the file that the Hub has"):
            _check_hashes(snapshot)
        (blobs / stored).write_bytes(content)


def test_a_folder_is_pushed_whole_and_alone(tmp_path, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            calls.append((repo, private))
            return types.SimpleNamespace(repo_id=f"me/{repo}")

        def upload_folder(self, **what):
            calls.append(what)

    module = types.ModuleType("huggingface_hub")
    module.HfApi = Api
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    folder = write_model(tmp_path)
    assert publish.main([str(folder), "--push", "van", "--private"]) == 0
    assert calls[0] == ("van", True)
    assert calls[1]["allow_patterns"] == ["model.safetensors", "config.json", "README.md"]
    assert calls[1]["repo_id"] == "me/van"
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert publish.main([str(folder), "--push", "van"]) == 2
    assert "SHA-256" in capsys.readouterr().err
    assert publish.main([str(folder)]) == 2
    assert "is a model folder already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_goes_to_a_hub_and_comes_back_after_an_interrupted_download(tmp_path):
    pytest.importorskip("huggingface_hub")
    folder = write_model(tmp_path)
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    with hub_server.serving() as hub:
        environment = {
            **os.environ,
            **{"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_none", "HF_HOME": str(tmp_path / "hf")},
            **{"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)},
        }

        def run(*words: str, **settings: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                [sys.executable, "-m", "lska_jax", *words],
                env={**environment, **settings},
                capture_output=True,
                text=True,
                timeout=300,
            )

        done = run("publish", str(folder), "--push", "van")
        assert done.returncode == 0, done.stderr
        assert set(hub.files["me/van"]) == {"model.safetensors", "config.json", "README.md"}
        for name, content in hub.files["me/van"].items():
            assert content == (folder / name).read_bytes()
        hub.cut["model.safetensors"] = 5_000
        done = run("predict", "hf-hub:me/van", str(tmp_path / "image.png"))
        assert done.returncode == 0, done.stderr
        # Below its chunk of 10 MB the library keeps nothing, and asks for the whole file anew.
        asked = [a for a in hub.requests if a.startswith("GET") and a.endswith(".safetensors")]
        assert len(asked) == 2
    # The Hub is gone; the cache is not.
    done = run("predict", "hf-hub:me/van", str(tmp_path / "image.png"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
