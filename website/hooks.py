"""What the site does with the pages besides: those outside docs/, and links that lead out of it.

In the repository a page links to files as they lie there. On the site the pages of the root have a
place in docs/, and what is no page becomes its name: no link of the site leads nowhere.
"""

import posixpath
import re
from itertools import takewhile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Of the repository -> of the site.
_PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "findings/README.md": "findings.md",
}
_FILES = {f"website/{name}": f"assets/{name}" for name in ("iframe-worker.js", "narrow.css")}
# What the head of a finding says, in this order, behind its title.
_STATEMENTS = ("Versions", "Expected by most", "Seen", "What helps")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    root = Path(config.config_file_path).parent
    for source, place in _PAGES.items():
        text = (root / source).read_text(encoding="utf-8")
        if source == "findings/README.md":
            text += "".join(map(describe_finding, sorted((root / "findings").glob("*.sh"))))
        files.append(File.generated(config, place, content=text))
    for path, place in _FILES.items():
        files.append(File.generated(config, place, abs_src_path=str(root / path)))
    return files


def describe_finding(script: Path) -> str:
    """Return the head of a finding's script as a section: its title, and one item a statement.

    Raises:
      ValueError: the head lacks one of the statements that a finding makes.
    """
    lines = script.read_text(encoding="utf-8").splitlines()[1:]
    head = takewhile(lambda line: line.startswith("#"), lines)
    words = " ".join(line.removeprefix("#").strip() for line in head).partition(" Ends 0 ")[0]
    title, *parts = re.split(rf" +({'|'.join(_STATEMENTS)}): ", words)
    if tuple(parts[::2]) != _STATEMENTS:
        raise ValueError(f"The head of {script} says {parts[::2]}; needed: {list(_STATEMENTS)}.")
    items = [f"- **{name}**: {_plain(text)}" for name, text in zip(*[iter(parts)] * 2, strict=True)]
    return "\n".join(
        ["", f"## {_plain(title).rstrip('.')}", "", f"`{script.name}`", "", *items, ""]
    )


def _plain(text: str) -> str:
    """Keep what Markdown would take for markup."""
    return re.sub(r"([\\*_<>\[\]`])", r"\\\1", text)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links so that they lead to pages and files of the site."""
    on_site = page.file.src_uri
    source = next((s for s, place in _PAGES.items() if place == on_site), f"docs/{on_site}")

    def replaced(match: re.Match[str]) -> str:
        words, link = match.groups()
        target, _, section = link.partition("#")
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = _PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        found = files.get_file_from_path(place)
        if found is None or not found.inclusion.is_included():
            # Of the repository alone; whether it is there is the repository's own test.
            return f"{words} (`{path}`)" if words.strip("`") != path else words
        relative = posixpath.relpath(place, posixpath.dirname(on_site) or ".")
        return f"[{words}]({relative}{'#' * bool(section)}{section})"

    # Code is no place for links.
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if number % 2 else _LINK.sub(replaced, part) for number, part in enumerate(parts)
    )
