"""The model in the box as a newcomer tries it: one command each, in an empty folder, offline."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from lska_jax.data.drawings import CLASS_NAMES, DrawingsSource
from lska_jax.robustness.sets.catalogue import parse_suite
from lska_jax.weights import read_facts

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 500
# Whatever opens a connection ends there; to listen is allowed.
OFFLINE = """\
import socket, sys
def refuse(*arguments):
    raise OSError("there is no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
if __name__ == "__main__":
    from lska_jax.__main__ import main
    sys.exit(main(sys.argv[1:]))
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def newcomer(tmp_path):
    """Return how a command is begun in a folder that holds a photo and photos of two classes."""
    drawings = DrawingsSource("test")
    Image.fromarray(drawings[8].image).save(tmp_path / "photo.png")
    for index in range(len(drawings)):
        label = int(drawings.labels[index])
        if CLASS_NAMES[label] in ("ship", "frog"):
            folder = tmp_path / "photos" / CLASS_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawings[index].image).save(folder / f"{index}.png")
    # In a folder of its own, as an installed command is.
    script = tmp_path / "bin" / "offline.py"
    script.parent.mkdir()
    script.write_text(OFFLINE)

    def begin(*words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(script), *words],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def outcome(process: subprocess.Popen) -> str:
    """Return what a command printed, once it is done and all is well."""
    said, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, errors
    return said


def test_a_photo_is_classified(newcomer, tmp_path):
    lines = outcome(newcomer("predict", "cifar10", "photo.png")).splitlines()
    names = read_facts("box:cifar10").class_names
    assert len(lines) == 6 and all(line.split()[2] in names for line in lines[1:])


def test_what_the_network_looks_at_is_drawn(newcomer, tmp_path):
    outcome(newcomer("explain", "cifar10", "photo.png", "--out", "explained"))
    written = {path.name for path in (tmp_path / "explained").iterdir()}
    assert {"explain.html", "explain.npz", "receptive_field.csv"} <= written
    assert [name for name in written if "gates" in name]


def test_the_smoke_suite_has_no_hole(newcomer, tmp_path):
    said = outcome(newcomer("robustness", "--model", "cifar10", "--suite", "smoke", "--out", "out"))
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert sum("result" in record for record in records) == len(parse_suite("smoke"))
    assert not any("hole" in record for record in records) and "drawings, no photographs" in said
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "drawings, split test" in page


def test_it_is_evaluated_with_the_config_it_was_trained_with(newcomer, tmp_path):
    words = ("--config", "cifar10", "--config.data.source=drawings", "--workdir", "test")
    outcome(newcomer("evaluate", "--checkpoint", "cifar10", *words))
    record = json.loads((tmp_path / "test" / "evaluation.json").read_text())
    # Of ten classes; above chance even for drawings.
    assert record["eval/top1"] > 0.2


def test_it_is_tuned_on_images_of_ones_own(newcomer, tmp_path):
    words = ("--data", "photos", "--epochs", "1", "--batch_size", "8", "--workdir", "run")
    outcome(newcomer("train", "--from", "cifar10", *words))
    assert "frog" in outcome(newcomer("predict", "run", "photo.png"))


def test_it_is_transferred_exported_and_published(newcomer, tmp_path):
    outcome(newcomer("transfer", "cifar10", "--k", "35", "--out", "k35"))
    assert read_facts(tmp_path / "k35").config.k == 35
    outcome(newcomer("export", "cifar10", "model.safetensors"))
    outcome(newcomer("export", "cifar10", "model.jaxexport"))
    outcome(newcomer("publish", "cifar10", "--out", "mine", "--license", "mine"))
    assert read_facts(tmp_path / "mine").config == read_facts("box:cifar10").config
    assert "cifar10" in outcome(newcomer("weights", "cifar10"))


def test_the_page_answers(newcomer, tmp_path):
    process = newcomer("demo", "cifar10", "--port", "0", "--no_browser")
    try:
        (address,) = [w for w in process.stdout.readline().split() if w.startswith("http")]
        address = address.rstrip(".")
        with urllib.request.urlopen(f"{address}/about", timeout=60) as answer:
            assert json.load(answer)["name"] == "cifar10"
        photo = (tmp_path / "photo.png").read_bytes()
        with urllib.request.urlopen(f"{address}/look?over=gradcam", photo, timeout=120) as answer:
            found = json.load(answer)
        assert {row["name"] for row in found["top"]} <= {*read_facts("box:cifar10").class_names}
    finally:
        process.terminate()
        process.communicate(timeout=60)
