"""The documentation: short pages, a reference of all public names, a site without a warning."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MAX_LINES = 250
FINDINGS = sorted((ROOT / "findings").glob("*.sh"))
# Those that say what is public.
PUBLIC_PACKAGES = [
    ".".join(file.parent.relative_to(ROOT).parts)
    for file in sorted((ROOT / "lska_jax").rglob("__init__.py"))
    if "__all__" in file.read_text()
]


def test_no_page_is_long():
    lines = {str(page.relative_to(ROOT)): len(page.read_text().splitlines()) for page in PAGES}
    assert {page: count for page, count in lines.items() if count > MAX_LINES} == {}


def test_every_page_has_a_place_on_the_site():
    listed = set(re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES} - listed == set()


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    described = {name.rpartition(".")[2] for name in re.findall("^::: (.+)$", text, re.MULTILINE)}
    names = importlib.import_module(package).__all__
    # Packages among them have their own; nothing is loaded to tell.
    assert {n for n in names if not (ROOT / "lska_jax" / n).is_dir()} - described == set()


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda path: path.stem)
def test_every_finding_says_at_its_head_what_the_site_shows(finding):
    # website/hooks.py makes the page of them.
    head = re.match(r"#!.*\n((?:#.*\n)+)", finding.read_text())[1]
    said = re.findall("^# ([A-Z][a-z ]+)(?::| 0 )", head, re.MULTILINE)
    assert said[-5:] == ["Versions", "Expected by most", "Seen", "What helps", "Ends"]
