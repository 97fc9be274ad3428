"""The folder that a report is: one page that needs nothing beside it, and its files."""

import base64
import html.parser
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from summaries import corruption_scores, full_summary, holed_summary, stamped, summary

from lska_jax.commands.report import main
from lska_jax.robustness.cells import Cell, CellResult, ModelStamp, Score, Summary
from lska_jax.robustness.report import results_csv, terminal_table, write_report
from lska_jax.robustness.sweep.results_file import ResultsFile

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> $x_1^{ _hidden"
VOID = {"meta", "br", "img"}


def clean_summary(name: str) -> Summary:
    """Return a model that there is nothing to draw of, so that a report takes no time."""
    return summary(name, {"imagenet/top1": 0.7})


class Page(html.parser.HTMLParser):
    """Tags, texts and addresses of a page; an error where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report of three models, one of them hostile, one with holes."""
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    models = [full_summary("plain", 0.7, k=7), holed_summary("holed"), full_summary(HOSTILE, 0.8)]
    sheet = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
    path = write_report(models, out, sample_sheet=sheet, conditions={"Suite": "a < b"})
    assert path == out / "report.html"
    return out


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_report_is_these_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "corruptions_imagenet_c_ce.png",
        "report.html",
        "results.csv",
        "results.json",
        "samples.png",
        "severities_imagenet_c.png",
        "shape_bias.png",
        "shift.png",
        "summary.txt",
        "tables.md",
        "tables.tex",
    ]


def test_the_page_is_sound_html_without_scripts(folder):
    page = page_of(folder)
    assert page.tags.count("html") == page.tags.count("body") == page.tags.count("style") == 1
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_the_page_needs_nothing_beside_it(folder):
    page = page_of(folder)
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(", text)


def test_links_within_the_page_lead_somewhere(folder):
    page = page_of(folder)
    anchors = {value for name, value in page.attributes if name == "id"}
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert links == anchors
    assert links == {
        "summary",
        "models",
        "missing",
        "pictures",
        "corruptions",
        "sets",
        "definitions",
    }


def test_no_attribute_of_the_page_runs_anything(folder):
    names = {name for name, _ in page_of(folder).attributes}
    assert not [name for name in names if name.startswith("on")]
    assert names <= {
        *("lang", "charset", "name", "content", "id", "class", "href", "src", "alt", "title"),
        "colspan",
    }


def test_a_hostile_name_is_shown_as_it_is(folder):
    assert HOSTILE in page_of(folder).text


def test_the_pictures_in_the_page_are_the_files_beside_it(folder):
    sources = [value for name, value in page_of(folder).attributes if name == "src"]
    inlined = [base64.b64decode(value.partition(",")[2]) for value in sources]
    files = {path.read_bytes() for path in folder.glob("*.png")}
    assert len(inlined) == len(files) == 5
    assert set(inlined) == files


def test_the_page_says_what_a_reader_needs(folder):
    page = page_of(folder)
    text = page.text
    assert "Report written: 20" in text
    assert "Suite: a < b" in text
    assert re.search(r"With: lska_jax \S+, Python \S+, jax \S+", text)
    assert "missing" in text
    assert "zenodo.org/record/2235448" in text
    assert "Mean of CE over the 15 corruptions" in text
    # The error of the plain model over AlexNet's, with its interval.
    assert "62.5 [61.5, 63.5]" in text


def test_the_sample_sheet_is_shown_unchanged(folder):
    with Image.open(folder / "samples.png") as image:
        shown = np.asarray(image)
    assert (shown == np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).all()


def test_texts_of_the_report_are_those_of_the_library(folder):
    models = [full_summary("plain", 0.7, k=7), holed_summary("holed"), full_summary(HOSTILE, 0.8)]
    assert (folder / "summary.txt").read_text(encoding="utf-8") == terminal_table(models)
    assert (folder / "results.csv").read_bytes().decode() == results_csv(models)
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in content["models"]] == ["plain", "holed", HOSTILE]


def test_nothing_missing_is_said_too(tmp_path):
    page = Page(write_report([clean_summary("a")], tmp_path).read_text(encoding="utf-8"))
    assert "Nothing: every planned set was measured." in page.text


def test_a_report_of_holes_alone_has_no_pictures_and_says_so(tmp_path):
    nothing = summary("a", {}, holes={Cell("imagenet_a"): "get it there"})
    page = Page(write_report([nothing], tmp_path).read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert "get it there" in page.text
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.slow
def test_errors_are_drawn_where_alexnets_do_not_apply(tmp_path):
    scores = {
        "cifar10/top1": stamped(0.9),
        **corruption_scores("cifar10_c", 0.3, provenance="generated", with_ce=False),
    }
    write_report([summary("a", scores)], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("corruptions*")) == [
        "corruptions_cifar10_c_error.png"
    ]


def test_a_second_report_replaces_the_first_and_leaves_no_scraps(tmp_path):
    write_report([clean_summary("model_of_old")], tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    write_report([clean_summary("model_of_new")], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "model_of_new" in text
    assert "model_of_old" not in text


def test_a_sample_sheet_may_be_a_file_or_its_bytes(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(file, format="PNG")
    (tmp_path / "sheet.png").write_bytes(file.getvalue())
    for name, sheet in (("a", file.getvalue()), ("b", tmp_path / "sheet.png")):
        write_report([clean_summary("a")], tmp_path / name, sample_sheet=sheet)
        with Image.open(tmp_path / name / "samples.png") as image:
            assert image.size == (30, 20)


def test_a_sample_sheet_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The sample sheet is no picture"):
        write_report([clean_summary("a")], tmp_path / "out", sample_sheet=b"no picture")
    os.mkfifo(tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="it is a pipe"):
        write_report([clean_summary("a")], tmp_path / "out", sample_sheet=tmp_path / "sheet.png")
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="No models"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def empty_files(folder, monkeypatch, *names):
    """Go to a folder with files of these names."""
    monkeypatch.chdir(folder)
    for name in names:
        (folder / name).touch()


def test_the_command_writes_the_report_and_prints_the_table(tmp_path, capsys, monkeypatch):
    by_path = {
        Path("a.jsonl"): [clean_summary("a")],
        Path("b.jsonl"): [clean_summary("b")],
    }
    monkeypatch.setattr("lska_jax.robustness.sweep.summary.load_summaries", by_path.__getitem__)
    empty_files(tmp_path, monkeypatch, *by_path)
    assert main(["a.jsonl", "b.jsonl", "--out", str(tmp_path), "--title", "My title"]) == 0
    printed = capsys.readouterr().out
    assert terminal_table([*by_path[Path("a.jsonl")], *by_path[Path("b.jsonl")]]) in printed
    assert f"Wrote {tmp_path / 'report.html'}." in printed
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "My title" in text
    assert "Results: a.jsonl, b.jsonl" in text


def test_a_mistake_ends_the_command_in_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "lska_jax.robustness.sweep.summary.load_summaries", lambda path: [clean_summary("same")]
    )
    empty_files(tmp_path, monkeypatch, "a.jsonl", "b.jsonl")
    assert main(["a.jsonl", "b.jsonl", "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: Two models are called 'same'.")
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_the_command_reads_what_a_sweep_wrote(tmp_path, capsys):
    cell = Cell("imagenet_sketch")
    result = CellResult(
        model="measured",
        cell=cell,
        provenance="tfds",
        origin="imagenet_sketch",
        preprocessing="crop 224",
        num_images=4,
        scores={"top1": Score(0.25, 0.0, 0.75)},
    )
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, {"suite": "imagenet_sketch"}) as file:
        file.add_plan([cell])
        file.add_model(ModelStamp(name="measured", sha256="0" * 64, preprocessing="crop 224"))
        file.add_result(result)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert "25.0 [0.0, 75.0]" in capsys.readouterr().out
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
