"""One HTML page that needs nothing beside it: pictures and style are in it, and no scripts."""

import base64
import html
from collections.abc import Mapping, Sequence

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.grids import (
    Entry,
    Grid,
    corruption_grid,
    corruption_scores,
    paper_grid,
    set_grid,
)
from lska_jax.robustness.report.holes import group_holes
from lska_jax.robustness.report.names import parse_key, printable, set_title
from lska_jax.robustness.report.readings import (
    PROVENANCE_WORDS,
    all_keys,
    all_sets,
    provenances,
)
from lska_jax.robustness.scores import SCORES

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


def page(
    summaries: Sequence[Summary],
    pictures: Sequence[Picture],
    *,
    title: str,
    conditions: Mapping[str, str],
) -> str:
    """Return the page.

    Args:
      summaries: one for each model.
      pictures: in the order in which they are shown.
      title: of the page.
      conditions: what stands above everything: date, versions and so on.
    """
    sections = [
        ("summary", "Summary", _summary(summaries)),
        ("models", "Models", _models(summaries)),
        ("missing", "What is missing", _holes(summaries)),
        ("pictures", "Pictures", _pictures(pictures)),
        ("corruptions", "Corruptions", _corruptions(summaries)),
        ("sets", "Sets", _sets(summaries)),
        ("definitions", "Definitions", _definitions(summaries)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{_text(head)}</a>' for name, head, _ in sections)
    body = "\n".join(
        f'<section id="{name}">\n<h2>{_text(head)}</h2>\n{content}\n</section>'
        for name, head, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
{_pairs(conditions)}
<nav>{links}</nav>
{body}
</body>
</html>
"""


def grid_html(grid: Grid, *, is_dense: bool = False) -> str:
    """Return a grid as an HTML table, and its footnotes below.

    Args:
      grid: to show.
      is_dense: many narrow columns; intervals show where the pointer is, not below each number.
    """
    lines = [f'<div class="scroll"><table{" class=dense" if is_dense else ""}>', "<thead>"]
    if grid.groups:
        spans = "".join(
            f'<th class="group" colspan="{count}">{_text(name)}</th>' for name, count in grid.groups
        )
        lines.append(f"<tr><th></th>{spans}</tr>")
    heads = "".join(f"<th>{_text(c.label)} {c.arrow}</th>" for c in grid.columns)
    lines += [f"<tr><th>Model</th>{heads}</tr>", "</thead>", "<tbody>"]
    for name, entries in grid.rows:
        cells = "".join(_entry(entry, with_interval=not is_dense) for entry in entries)
        lines.append(f'<tr><td class="name">{_text(name)}</td>{cells}</tr>')
    lines += ["</tbody>", "</table></div>"]
    if grid.footnotes:
        notes = "".join(
            f"<li>{f'<sup>{mark}</sup> ' if mark else ''}{_text(text)}</li>"
            for mark, text in grid.footnotes
        )
        lines.append(f'<ul class="notes">{notes}</ul>')
    return "\n".join(lines)


def _text(text: object) -> str:
    return html.escape(printable(str(text)))


def _entry(entry: Entry, *, with_interval: bool) -> str:
    is_word = not entry.text.lstrip("-").replace(".", "").isdigit()
    kind = "best" if entry.is_best else "word" if is_word else ""
    marks = f"<sup>{','.join(entry.marks)}</sup>" if entry.marks else ""
    text = f'<span class="{kind}">{_text(entry.text)}</span>{marks}'
    if not entry.interval:
        return f"<td>{text}</td>"
    if with_interval:
        return f'<td>{text}<span class="interval">{entry.interval}</span></td>'
    return f'<td title="{entry.interval}">{text}</td>'


def _pairs(pairs: Mapping[str, str]) -> str:
    items = "<br>\n".join(f"{_text(name)}: {_text(value)}" for name, value in pairs.items())
    return f'<p class="soft">{items}</p>'


def _summary(summaries: Sequence[Summary]) -> str:
    grid = paper_grid(summaries)
    words = (
        "Percentages, each with its 95 % bootstrap interval over images where one is known. "
        "Coloured bold: the best of a column whose numbers can be compared."
    )
    table = grid_html(grid) if grid.columns else "<p>No score of a whole set was measured.</p>"
    return f'<p class="soft">{words}</p>\n{table}'


def _models(summaries: Sequence[Summary]) -> str:
    rows = []
    for summary in summaries:
        model = summary.model
        facts = ", ".join(f"{name} {value}" for name, value in model.facts.items())
        rows.append(
            f'<tr><td class="name">{_text(model.name)}</td>'
            f'<td class="hash" title="{_text(model.sha256)}">{_text(model.sha256[:16])}</td>'
            f'<td class="long">{_text(model.preprocessing)}</td>'
            f'<td class="long">{_text(facts)}</td></tr>'
        )
    return _plain_table(("Model", "SHA-256 (start)", "Preprocessing", "Facts"), rows)


def _plain_table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="plain">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _holes(summaries: Sequence[Summary]) -> str:
    groups = group_holes(summaries)
    if not groups:
        return "<p>Nothing: every planned set was measured.</p>"
    rows = [
        f'<tr><td class="long">{_text(group.cells)}</td>'
        f'<td class="long">{_text(_who(group.models, summaries))}</td>'
        f'<td class="long">{_text(group.reason)}</td></tr>'
        for group in groups
    ]
    words = "<p>A score that needs these is missing; no mean is taken over what is there.</p>"
    return words + "\n" + _plain_table(("Images", "Models", "Why, and where to get them"), rows)


def _who(models: Sequence[str], summaries: Sequence[Summary]) -> str:
    return "all" if len(models) == len(summaries) else ", ".join(models)


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = []
    for picture in pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        figures.append(
            f"<figure>\n<h3>{_text(picture.title)}</h3>\n"
            f'<img alt="{_text(picture.title)}" src="data:image/png;base64,{data}">\n'
            f"<figcaption>{_text(picture.caption)}</figcaption>\n</figure>"
        )
    return "\n".join(figures)


def _corruptions(summaries: Sequence[Summary]) -> str:
    parts = []
    for name in all_sets(summaries):
        for score in corruption_scores(summaries, name):
            grid = corruption_grid(summaries, name, score)
            parts.append(f"<h3>{_text(grid.title)}</h3>\n{grid_html(grid, is_dense=True)}")
    return "\n".join(parts)


def _sets(summaries: Sequence[Summary]) -> str:
    parts = []
    for name in all_sets(summaries):
        grid = set_grid(summaries, name)
        if not grid.columns:
            continue
        conditions = _set_conditions(summaries, name)
        parts.append(
            f"<h3>{_text(set_title(name))}</h3>\n"
            f'<p class="soft">{conditions}</p>\n{grid_html(grid)}'
        )
    return "\n".join(parts)


def _set_conditions(summaries: Sequence[Summary], name: str) -> str:
    """Return where the images of a set come from and how they were prepared."""
    scores = [
        stamped
        for summary in summaries
        for key, stamped in summary.scores.items()
        if parse_key(key).set == name
    ]
    kinds = [f"{kind} ({PROVENANCE_WORDS[kind]})" for kind in provenances(scores)]
    prepared = dict.fromkeys(score.preprocessing for score in scores)
    words = [f"Images: {'; '.join(kinds)}." if kinds else ""]
    words.append(f"Preprocessing: {'; '.join(prepared)}." if prepared else "")
    return _text(" ".join(filter(None, words)))


def _definitions(summaries: Sequence[Summary]) -> str:
    used = {key.score for key in all_keys(summaries)}
    rows = []
    for name, facts in SCORES.items():
        if name in used:
            better = {True: "higher", False: "lower", None: "neither"}[facts.is_higher_better]
            unit = "%" if facts.is_percent else facts.unit
            rows.append(
                f"<tr><td>{_text(facts.label)}</td><td>{_text(unit)}</td><td>{better}</td>"
                f'<td class="long">{_text(facts.definition)}</td>'
                f'<td class="long">{_text(facts.source)}</td></tr>'
            )
    return _plain_table(("Score", "Unit", "Better", "Definition", "Source"), rows) if rows else ""
