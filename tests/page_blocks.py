"""The code blocks of the pages: what a reader copies, in order, and which of it is not run and why.

A block is fenced, and its language is bash, python, or text for what is no code. A line in front of
the fence that a reader does not see takes a block out of the test that runs its page:

    <!-- not run: needs a TPU pod -->
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """Code of a page.

    Attributes:
      place: page and line, as "docs/start.md:12".
      language: "bash", "python", or "text".
      text: what stands between the fences.
      reason: why it is not run, or "".
    """

    place: str
    language: str
    text: str
    reason: str


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    content = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(
            f"{name}:{content.count(chr(10), 0, match.start('text'))}",
            match["language"],
            match["text"],
            match["reason"] or "",
        )
        for match in _FENCE.finditer(content)
    ]


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def pages_of_section(title: str) -> list[Path]:
    """Return the pages that lie in docs/ of a section of the site's navigation."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    section = re.search(rf"^  - {title}:\n((?:      - .+\n)+)", navigation, re.MULTILINE)
    names = re.findall(r"- (?:[^:\n]+: )?(\S+\.md)$", section[1], re.MULTILINE)
    return [page for name in names if (page := ROOT / "docs" / name).is_file()]
