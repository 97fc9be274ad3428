"""The documentation as a site: built without a warning, and read in a real browser from a disk."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="pip install lska-jax[docs]"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # With --strict a warning is an error.
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install lska-jax[browser]")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("There is no chromium to start.")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    loaded = r"""<(?:script|img)[^>]*src=["']?https?:|<link[^>]*(?:stylesheet|icon)[^>]*https?:"""
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []


def test_search_knows_guides_and_docstrings(site):
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"] for entry in index["docs"] if "gradcam" in entry["text"]}
    assert "explain.html" in {place.partition("#")[0] for place in found}
    assert any(place.startswith("reference/explaining.html") for place in found)


def test_every_finding_is_on_its_page(site):
    text = (site / "findings.html").read_text()
    assert [f.name for f in (ROOT / "findings").glob("*.sh") if f.name not in text] == []


def test_search_works_from_a_disk(site, browser):
    page = browser.new_page(viewport=DESKTOP)
    problems, requests = [], []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((site / "reference" / "models.html").as_uri())
    page.click("[data-md-component=search-query]")
    page.keyboard.type("occlusion")
    found = page.locator(".md-search-result__link[href*='explain.html']").first
    found.wait_for(timeout=60_000)
    found.click()
    page.wait_for_url(re.compile(r"/explain\.html"))
    assert "What a network looks at" in page.inner_text("h1")
    assert problems == []
    assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
    page.close()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_sticks_out_of_the_screen_and_every_picture_is_shown(site, browser, viewport):
    page = browser.new_page(viewport=viewport)
    wrong = []
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        hidden = page.evaluate("[...document.images].filter((i) => !i.naturalWidth).length")
        if width > viewport["width"] or hidden:
            wrong.append(f"{file.relative_to(site)}: {width} pixels wide, {hidden} hidden")
    assert wrong == []
    page.close()
