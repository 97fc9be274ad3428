"""The page of a robustness report: everything for people, in one file."""

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
from lska_jax.robustness.report.html_page import document, figures, pairs, plain_table, text
from lska_jax.robustness.report.names import parse_key, set_title
from lska_jax.robustness.report.readings import (
    PROVENANCE_WORDS,
    all_keys,
    all_sets,
    provenances,
)
from lska_jax.robustness.scores import SCORES


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
        ("pictures", "Pictures", figures(pictures)),
        ("corruptions", "Corruptions", _corruptions(summaries)),
        ("sets", "Sets", _sets(summaries)),
        ("definitions", "Definitions", _definitions(summaries)),
    ]
    return document(title, sections, head=pairs(conditions))


def grid_html(grid: Grid, *, is_dense: bool = False) -> str:
    """Return a grid as an HTML table, and its footnotes below.

    Args:
      grid: to show.
      is_dense: many narrow columns; intervals show where the pointer is, not below each number.
    """
    lines = [f'<div class="scroll"><table{" class=dense" if is_dense else ""}>', "<thead>"]
    if grid.groups:
        spans = "".join(
            f'<th class="group" colspan="{count}">{text(name)}</th>' for name, count in grid.groups
        )
        lines.append(f"<tr><th></th>{spans}</tr>")
    heads = "".join(f"<th>{text(c.label)} {c.arrow}</th>" for c in grid.columns)
    lines += [f"<tr><th>Model</th>{heads}</tr>", "</thead>", "<tbody>"]
    for name, entries in grid.rows:
        cells = "".join(_entry(entry, with_interval=not is_dense) for entry in entries)
        lines.append(f'<tr><td class="name">{text(name)}</td>{cells}</tr>')
    lines += ["</tbody>", "</table></div>"]
    if grid.footnotes:
        notes = "".join(
            f"<li>{f'<sup>{mark}</sup> ' if mark else ''}{text(words)}</li>"
            for mark, words in grid.footnotes
        )
        lines.append(f'<ul class="notes">{notes}</ul>')
    return "\n".join(lines)


def _entry(entry: Entry, *, with_interval: bool) -> str:
    is_word = not entry.text.lstrip("-").replace(".", "").isdigit()
    kind = "best" if entry.is_best else "word" if is_word else ""
    marks = f"<sup>{','.join(entry.marks)}</sup>" if entry.marks else ""
    shown = f'<span class="{kind}">{text(entry.text)}</span>{marks}'
    if not entry.interval:
        return f"<td>{shown}</td>"
    if with_interval:
        return f'<td>{shown}<span class="interval">{entry.interval}</span></td>'
    return f'<td title="{entry.interval}">{shown}</td>'


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
            f'<tr><td class="name">{text(model.name)}</td>'
            f'<td class="hash" title="{text(model.sha256)}">{text(model.sha256[:16])}</td>'
            f'<td class="long">{text(model.preprocessing)}</td>'
            f'<td class="long">{text(facts)}</td></tr>'
        )
    return plain_table(("Model", "SHA-256 (start)", "Preprocessing", "Facts"), rows)


def _holes(summaries: Sequence[Summary]) -> str:
    groups = group_holes(summaries)
    if not groups:
        return "<p>Nothing: every planned set was measured.</p>"
    rows = [
        f'<tr><td class="long">{text(group.cells)}</td>'
        f'<td class="long">{text(_who(group.models, summaries))}</td>'
        f'<td class="long">{text(group.reason)}</td></tr>'
        for group in groups
    ]
    words = "<p>A score that needs these is missing; no mean is taken over what is there.</p>"
    return words + "\n" + plain_table(("Images", "Models", "Why, and where to get them"), rows)


def _who(models: Sequence[str], summaries: Sequence[Summary]) -> str:
    return "all" if len(models) == len(summaries) else ", ".join(models)


def _corruptions(summaries: Sequence[Summary]) -> str:
    parts = []
    for name in all_sets(summaries):
        for score in corruption_scores(summaries, name):
            grid = corruption_grid(summaries, name, score)
            parts.append(f"<h3>{text(grid.title)}</h3>\n{grid_html(grid, is_dense=True)}")
    return "\n".join(parts)


def _sets(summaries: Sequence[Summary]) -> str:
    parts = []
    for name in all_sets(summaries):
        grid = set_grid(summaries, name)
        if not grid.columns:
            continue
        conditions = _set_conditions(summaries, name)
        parts.append(
            f'<h3>{text(set_title(name))}</h3>\n<p class="soft">{conditions}</p>\n{grid_html(grid)}'
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
    return text(" ".join(filter(None, words)))


def _definitions(summaries: Sequence[Summary]) -> str:
    used = {key.score for key in all_keys(summaries)}
    rows = []
    for name, facts in SCORES.items():
        if name in used:
            better = {True: "higher", False: "lower", None: "neither"}[facts.is_higher_better]
            unit = "%" if facts.is_percent else facts.unit
            rows.append(
                f"<tr><td>{text(facts.label)}</td><td>{text(unit)}</td><td>{better}</td>"
                f'<td class="long">{text(facts.definition)}</td>'
                f'<td class="long">{text(facts.source)}</td></tr>'
            )
    return plain_table(("Score", "Unit", "Better", "Definition", "Source"), rows) if rows else ""
