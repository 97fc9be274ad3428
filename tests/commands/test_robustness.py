"""``eval_robustness.py`` as a person runs it: a report, or one readable line for a mistake."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from known_models import write_pictures
from PIL import Image
from small_models import ONE_BLOCK, small_model

from lska_jax.commands import report
from lska_jax.commands.robustness import main, split_name
from lska_jax.models.table import Preprocessing
from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from lska_jax.weights import ModelFacts, write_model_folder
from lska_jax.weights.pretrained import arrays_of

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 240
NAMES = ("bird", "car", "cat", "dog")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    built = small_model(k=7, **ONE_BLOCK, num_classes=len(NAMES))
    facts = ModelFacts(
        config=built.config, preprocessing=Preprocessing(image_size=32), class_names=NAMES
    )
    return str(write_model_folder(tmp_path_factory.mktemp("m") / "small", facts, arrays_of(built)))


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clean")
    answers = {"bird": [0, 1, 2], "car": [1, 5], "cat": [2, 9], "dog": [3]}
    write_pictures(folder / "test", answers, suffix="png")
    return f"folder:{folder}"


def arguments(model: str, clean: str, out: Path, *more: str) -> list[str]:
    suite = "imagenet,imagenet_c/contrast,imagenet_c/saturate/2"
    return [
        *("--model", model, "--suite", suite, "--generate", "--clean", clean),
        *("--clean_split", "test", "--out", str(out), "--batch_size", "8", *more),
    ]


@pytest.fixture(scope="module")
def swept(model, clean, tmp_path_factory) -> tuple[Path, str]:
    """Return the folder of a sweep and what it printed."""
    out = tmp_path_factory.mktemp("swept")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(arguments(model, clean, out)) == 0
    return out, said.getvalue()


def test_a_sweep_ends_in_a_table_and_a_report_and_is_not_repeated(model, clean, swept, capsys):
    out, printed = swept
    assert "clean | small | top1" in printed and "Wrote" in printed
    written = {path.name for path in (out / "report").iterdir()}
    assert {"report.html", "results.csv", "results.json", "tables.md", "tables.tex"} <= written
    samples = {path.name for path in (out / "samples").iterdir()}
    assert samples == {"clean.png", "saturate_2.png", *(f"contrast_{s}.png" for s in range(1, 6))}
    assert "samples.png" in written
    before = (out / "results.jsonl").read_bytes()
    assert main(arguments(model, clean, out)) == 0
    assert "7 of 7 cells are measured already" in capsys.readouterr().out
    assert (out / "results.jsonl").read_bytes() == before


def test_results_become_a_report_and_a_figure_against_k(swept, tmp_path, capsys):
    results = str(swept[0] / "results.jsonl")
    assert report.main([results, "--out", str(tmp_path / "report"), "--title", "Mine"]) == 0
    assert "Clean" in capsys.readouterr().out
    assert "Mine" in (tmp_path / "report" / "report.html").read_text()
    assert report.main([results, "--out", str(tmp_path / "k"), "--against_k"]) == 0
    assert capsys.readouterr().out.endswith("shape_against_k.png.\n")
    assert (tmp_path / "k" / "shape_against_k.csv").read_text().count("small") == 3


def test_a_results_file_that_is_missing_is_named(tmp_path, capsys):
    assert report.main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_sheet_shows_the_corruptions_of_square_photos(tmp_path, monkeypatch, capsys):
    def draw(images, **options):
        assert images.shape == (1, 224, 224, 3)
        return Image.new("RGB", (8, 8))

    # Nineteen corruptions take a minute to compile; the drawing has tests of its own.
    monkeypatch.setattr("lska_jax.robustness.corruptions.sheet.sample_sheet", draw)
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    out = tmp_path / "new" / "sheet.png"
    assert main(["--sheet", str(tmp_path / "photo.png"), "--out", str(out)]) == 0
    assert "not the benchmark's" in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.size == (8, 8)


@pytest.mark.parametrize("option", ["1199", "1200"])
def test_a_photo_of_a_sheet_is_read_as_all_others(tmp_path, monkeypatch, capsys, option):
    monkeypatch.setattr(
        "lska_jax.robustness.corruptions.sheet.sample_sheet",
        lambda *_, **__: Image.new("L", (8, 8)),
    )
    photo, pipe = tmp_path / "photo.png", tmp_path / "pipe.png"
    Image.new("RGB", (40, 30)).save(photo)
    os.mkfifo(pipe)
    out = ("--out", str(tmp_path / "sheet.png"), "--max_image_pixels", option)
    assert main(["--sheet", str(photo), *out]) == (0 if option == "1200" else 2)
    assert ("limit of 1,199" in capsys.readouterr().err) == (option == "1199")
    assert main(["--sheet", str(pipe), *out]) == 2
    assert f"{pipe} cannot be read: it is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("a" * 250 + ".png", "File name too long"), ("a.v2", "no format of pict")]
)
def test_a_sheet_that_cannot_be_written_is_not_drawn(tmp_path, monkeypatch, capsys, name, said):
    drawn = "lska_jax.robustness.corruptions.sheet.sample_sheet"
    monkeypatch.setattr(drawn, lambda *_, **__: pytest.fail("drawn"))
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    assert main(["--sheet", str(tmp_path / "photo.png"), "--out", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_several_models_get_the_names_they_are_given(model, clean, tmp_path):
    more = ("--model", f"twin={model}", "--suite", "imagenet")
    assert main(arguments(f"first={model}", clean, tmp_path, *more)) == 0
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert "first" in json.dumps(results) and "twin" in json.dumps(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--model", "nowhere"), "There is no model folder 'nowhere'"),
        (("--suite", "imagenet_z"), "There is no suite or image set 'imagenet_z'"),
        (("--clean", "folder:/nowhere"), "/nowhere does not exist"),
        (("--clean_split", "train"), "train"),
        (("--max_image_pixels", "0"), "max_image_pixels is 0; give a whole number of at least 1"),
        (("--limit", "-3"), "limit is -3; give a whole number of at least 0"),
        (("--frost_pictures", "/nowhere"), "/nowhere"),
        (("--suite", "paper"), "can only be measured for ImageNet's 1,000"),
        (("--num_processes", "2"), "--coordinator_address"),
    ],
    ids=str,
)
def test_a_mistake_is_one_readable_line(model, clean, tmp_path, capsys, change, message):
    assert main(arguments(model, clean, tmp_path, *change)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("Error: ") and "Traceback" not in error


def test_a_path_with_an_equals_sign_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    for place in ("runs/lr=0.1", "lr=0.1", "plain"):
        assert split_name(place) == (None, place)
    assert split_name("first=runs/lr=0.1") == ("first", "runs/lr=0.1")


def test_one_set_is_described(capsys):
    assert main(["--list", "imagenet_c"]) == 0
    assert capsys.readouterr().out.startswith("imagenet_c: ")
    assert main(["--list", "imagenet_s"]) == 2
    assert "imagenet_s" in capsys.readouterr().err


def test_no_model_is_a_mistake(capsys):
    assert main([]) == 2
    assert "--model is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_leaves_with_the_code_that_means_go_on(model, clean, tmp_path):
    suite = "imagenet,imagenet_c"
    command = [sys.executable, "-m", "lska_jax", "robustness", *arguments(model, clean, tmp_path)]
    command[command.index("--suite") + 1] = suite
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    results = tmp_path / "results.jsonl"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (results.exists() and b'{"result"' in results.read_bytes()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == RESUME_EXIT_CODE
    assert "every cell that is done is in the results file" in errors
    assert "Traceback" not in errors
