"""One HTML page that needs nothing beside it: pictures and style are in it, and no scripts."""

import base64
import html
from collections.abc import Mapping, Sequence

from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.names import printable

_STYLE = """
:root { color-scheme: light dark; --line: #d0d0d0; --head: #f3f3f3; --soft: #595959;
  --text: #1b1b1b; --back: #ffffff; --accent: #0b5fa5; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --head: #262626; --soft: #b0b0b0;
  --text: #e8e8e8; --back: #161616; --accent: #7db8ec; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 78rem; margin: 2rem auto; padding: 0 1.2rem; }
sup { line-height: 0; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; }
h2 { font-size: 1.25rem; margin-top: 2.6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--head); font-weight: 600; }
th.group { text-align: center; border-left: 1px solid var(--line); }
table.plain th, table.plain td { text-align: left; }
table.dense th, table.dense td { padding: .25rem .26rem; font-size: .8rem; }
td.name { font-weight: 600; overflow-wrap: anywhere; min-width: 7rem; }
.interval, .notes, figcaption, .soft { color: var(--soft); font-size: .85rem; }
.interval { display: block; white-space: nowrap; }
.word { color: var(--soft); font-style: italic; }
.best { font-weight: 700; color: var(--accent); }
.hash { font-family: ui-monospace, monospace; font-size: .85rem; }
.notes { margin: .2rem 0 1rem 1.2rem; padding: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 4px; }
nav a { margin-right: 1rem; }
a { color: var(--accent); }
td.long { overflow-wrap: anywhere; min-width: 12rem; }
"""


def document(title: str, sections: Sequence[tuple[str, str, str]], *, head: str = "") -> str:
    """Return a page.

    Args:
      title: of the page.
      sections: (anchor, heading, HTML) of each; those without content are left out.
      head: HTML between title and links.
    """
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in sections)
    body = "\n".join(
        f'<section id="{name}">\n<h2>{text(heading)}</h2>\n{content}\n</section>'
        for name, heading, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{text(title)}</h1>
{head}
<nav>{links}</nav>
{body}
</body>
</html>
"""


def text(words: object) -> str:
    """Return text as HTML shows it."""
    return html.escape(printable(str(words)))


def pairs(names_and_values: Mapping[str, str]) -> str:
    """Return names and values, a line each."""
    items = "<br>\n".join(f"{text(name)}: {text(v)}" for name, v in names_and_values.items())
    return f'<p class="soft">{items}</p>'


def plain_table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table of text.

    Args:
      heads: of the columns.
      rows: HTML of each.
    """
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="plain">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def figures(pictures: Sequence[Picture]) -> str:
    """Return pictures with their titles and captions, the files inside."""
    found = []
    for picture in pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        found.append(
            f"<figure>\n<h3>{text(picture.title)}</h3>\n"
            f'<img alt="{text(picture.title)}" src="data:image/png;base64,{data}">\n'
            f"<figcaption>{text(picture.caption)}</figcaption>\n</figure>"
        )
    return "\n".join(found)
