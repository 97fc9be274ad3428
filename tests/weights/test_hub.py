"""Weights by Hub id and by tag: what is asked for, what the cache may link to, what is said."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import toy_family  # noqa: F401  (registers its models)
from published_folders import TOY_TAGS, timm_folder, toy_state_dict
from small_models import small_model, small_state_dict, write_safetensors

from lska_jax import create_model
from lska_jax.models import weight_tags
from lska_jax.weights import ModelFacts, read_facts, write_model_folder
from lska_jax.weights.hub import find_model_folder
from lska_jax.weights.pretrained import arrays_of

REVISION = "0123456789abcdef"


class Hub:
    """A cache laid out as huggingface_hub lays it out, and its snapshot_download."""

    def __init__(self, root: Path):
        self.root = root
        self.asked: list[tuple[str, str | None, list[str]]] = []

    def add(self, repo: str, folder: Path) -> Path:
        """Store a folder's files as blobs with links to them, and return the snapshot."""
        store = self.root / f"models--{repo.replace('/', '--')}"
        snapshot = store / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (store / "blobs").mkdir()
        for number, file in enumerate(sorted(folder.iterdir())):
            (store / "blobs" / str(number)).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(f"../../blobs/{number}")
        return snapshot

    def snapshot_download(self, repo, *, revision, allow_patterns):
        self.asked.append((repo, revision, allow_patterns))
        snapshot = self.root / f"models--{repo.replace('/', '--')}" / "snapshots" / REVISION
        if not snapshot.is_dir():
            raise TimeoutError("no route to host\nand much more")
        return str(snapshot)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stand in for huggingface_hub: the tests are offline and do without the package."""
    hub = Hub(tmp_path / "hub")
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = hub.snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return hub


@pytest.fixture
def toy_tags(monkeypatch):
    monkeypatch.setattr(weight_tags, "_rows", lambda: TOY_TAGS)


def test_a_hub_id_is_downloaded_into_its_cache_and_verified(hub, tmp_path):
    """The Hub's cache is links from snapshots to blobs: they may leave the snapshot's folder."""
    model = small_model()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    snapshot = hub.add("org/van", write_model_folder(tmp_path / "m", facts, arrays_of(model)))
    loaded = create_model(pretrained="hf-hub:org/van@v2")
    ((repo, revision, patterns),) = hub.asked
    assert (repo, revision) == ("org/van", "v2")
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(patterns)
    assert all(np.array_equal(a, arrays_of(model)[p]) for p, a in arrays_of(loaded).items())
    # The same snapshot by its path.
    assert read_facts(snapshot).config == model.config
    (snapshot / "model.safetensors").resolve().write_bytes(b"other")
    with pytest.raises(ValueError, match="SHA-256"):
        create_model(pretrained="org/van@v2")


def test_a_pickled_file_is_asked_for_where_there_is_no_safetensors(hub, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    hub.add("org/old", folder)
    find_model_folder("org/old")
    assert [("pytorch_model.bin" in patterns) for _, _, patterns in hub.asked] == [False, True]


def test_offline_the_error_says_what_to_download_by_hand(hub):
    with pytest.raises(ConnectionError) as refusal:
        create_model(pretrained="hf-hub:org/van")
    assert str(refusal.value) == (
        "org/van could not be downloaded (no route to host). Without it, download "
        "https://huggingface.co/org/van/resolve/main/config.json and "
        "https://huggingface.co/org/van/resolve/main/model.safetensors by hand into one folder "
        "and pass that folder."
    )


def test_a_mistyped_folder_is_said_to_be_missing(hub):
    with pytest.raises(ConnectionError, match="There is no folder runs/typo here"):
        create_model(pretrained="runs/typo")


def test_a_file_is_no_model_folder_and_no_hub_id(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ValueError, match="is a file, no model folder. Make a folder of it"):
        create_model(pretrained=path)


@pytest.mark.parametrize("pretrained", ["plain", "toy_small.plain"])
def test_a_tag_takes_its_repository_preprocessing_and_licence(hub, toy_tags, tmp_path, pretrained):
    hub.add("org/toy.plain", timm_folder(tmp_path / "t", crop_pct=0.5))
    name = "toy_small" if pretrained == "plain" else None
    model = create_model(name, pretrained=pretrained)
    assert hub.asked[0][0] == "org/toy.plain"
    tag = weight_tags.weight_tag("toy_small", "plain")
    assert model.preprocessing == tag.preprocessing
    facts = read_facts("toy_small.plain")
    assert facts.license == "mit" and facts.source["hub"] == "org/toy.plain"
    np.testing.assert_array_equal(
        np.asarray(model.classifier.kernel[...]).T, toy_state_dict()["fc.weight"]
    )


def test_pretrained_true_takes_the_first_tag_and_says_which(hub, toy_tags, tmp_path, capsys):
    hub.add("org/toy.plain", timm_folder(tmp_path / "t"))
    model = create_model("toy_small", pretrained=True, num_classes=3, in_channels=1)
    assert model.config.num_classes == 3 and model.preprocessing.mean == (0.5,)
    assert "toy_small: weights plain, the default" in capsys.readouterr().err


def test_an_unknown_tag_is_refused_with_those_that_there_are(toy_tags):
    with pytest.raises(ValueError) as refusal:
        create_model("toy_small", pretrained="fancy")
    assert "There is no folder fancy, and toy_small has no weights 'fancy'" in str(refusal.value)
    assert "no weights 'fancy'. Published weights of toy_small: plain, squashed, large" in str(
        refusal.value
    )
    with pytest.raises(FileNotFoundError, match="Published weights of toy_small: plain"):
        create_model(pretrained="toy_small.fancy")
    with pytest.raises(FileNotFoundError, match="it needs a model's name too: toy_small"):
        create_model(pretrained="plain")
    with pytest.raises(ValueError, match="No published weights of toy_large are known"):
        create_model("toy_large", pretrained=True)


def test_a_tag_of_other_classes_asks_for_their_number(hub, toy_tags, tmp_path):
    hub.add("org/toy.large", timm_folder(tmp_path / "t", classes=21841))
    with pytest.raises(ValueError) as refusal:
        create_model("toy_small", pretrained="large")
    assert "have 21841 classes, not ImageNet's 1000" in str(refusal.value)
    assert "num_classes: 21841 to keep them, 0 for features" in str(refusal.value)
    assert not hub.asked
    model = create_model("toy_small", pretrained="large", num_classes=0)
    assert model.config.num_classes == 0


def test_weights_that_are_not_on_the_hub_say_where_they_are():
    with pytest.raises(FileNotFoundError) as refusal:
        create_model("van_lska_tiny", pretrained=True)
    assert "Large-Separable-Kernel-Attention" in str(refusal.value)
    assert "lska-jax import FILE --weights in1k" in str(refusal.value)


def test_offline_one_file_is_to_be_imported_as_the_model_and_tag_that_were_asked_for(hub):
    with pytest.raises(ConnectionError, match="--model van_lka_tiny --weights in1k --out DIR"):
        create_model("van_lka_tiny", pretrained="in1k")


def test_one_file_in_a_repository_is_read_by_its_tag(hub, monkeypatch, tmp_path):
    row = {
        **TOY_TAGS["toy_small"]["plain"],
        **{"hub": "org/van", "file": "van.safetensors", "num_classes": 6},
    }
    monkeypatch.setattr(weight_tags, "_rows", lambda: {"van_lka_tiny": {"small": row}})
    folder = tmp_path / "t"
    folder.mkdir()
    write_safetensors(folder / "van.safetensors", small_state_dict("lka"))
    hub.add("org/van", folder)
    with pytest.raises(ValueError, match="van.safetensors does not fit van_lka_tiny"):
        create_model("van_lka_tiny", pretrained="small", num_classes=6)
    assert hub.asked[0][2] == ["van.safetensors"]
