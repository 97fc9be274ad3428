"""The documentation: short pages, a reference of all public names, a site without a warning."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MAX_LINES = 250


def test_no_page_is_long():
    lines = {str(page.relative_to(ROOT)): len(page.read_text().splitlines()) for page in PAGES}
    assert {page: count for page, count in lines.items() if count > MAX_LINES} == {}


def test_every_page_has_a_place_on_the_site():
    listed = set(re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES} - listed == set()


@pytest.mark.parametrize(
    "package",
    [
        "lska_jax",
        "lska_jax.analysis",
        "lska_jax.data",
        "lska_jax.ops",
        "lska_jax.robustness",
        "lska_jax.tasks",
        "lska_jax.weights",
    ],
)
def test_every_public_name_is_in_the_reference(package):
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    described = {name.rpartition(".")[2] for name in re.findall("^::: (.+)$", text, re.MULTILINE)}
    names = importlib.import_module(package).__all__
    # Packages among them have their own; nothing is loaded to tell.
    assert {n for n in names if not (ROOT / "lska_jax" / n).is_dir()} - described == set()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="pip install lska-jax[docs]")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    loaded = r"""<(?:script|img)[^>]*src=["']?https?:|<link[^>]*(?:stylesheet|icon)[^>]*https?:"""
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []
    index = json.loads((tmp_path / "search" / "search_index.json").read_text())
    found = {entry["location"] for entry in index["docs"] if "gradcam" in entry["text"]}
    assert "explain.html" in {place.partition("#")[0] for place in found}
    assert any(place.startswith("reference/explaining.html") for place in found)
