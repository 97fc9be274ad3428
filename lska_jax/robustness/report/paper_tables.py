r"""Grids as Markdown and as LaTeX (\usepackage{booktabs}), to paste into a paper.

The best value of a column is bold. Names of models and texts of others are escaped.
"""

import re

from lska_jax.robustness.report.grids import Entry, Grid
from lska_jax.robustness.report.names import printable

_ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "": ""}
# From this many columns on, the letters are smaller and the gaps narrower.
_WIDE_FROM = 10

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "↑": _ARROWS["↑"],
    "↓": _ARROWS["↓"],
    "×": r"$\times$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
}


def markdown(grid: Grid) -> str:
    """Return a grid as a Markdown table with its title above and its footnotes below.

    Intervals are left out: they stand in the page, the terminal and results.csv.
    """
    head = ["Model", *(f"{c.full_label} {c.arrow}".rstrip() for c in grid.columns)]
    lines = [f"**{escape_markdown(grid.title)}**", ""]
    lines.append("| " + " | ".join(map(escape_markdown, head)) + " |")
    lines.append("| --- |" + " ---: |" * len(grid.columns))
    for name, entries in grid.rows:
        cells = [escape_markdown(name), *map(_markdown_entry, entries)]
        lines.append("| " + " | ".join(cells) + " |")
    if grid.footnotes:
        lines.append("")
    for mark, text in grid.footnotes:
        sign = f"<sup>{mark}</sup> " if mark else ""
        lines.append(f"- {sign}{escape_markdown(text)}")
    return "\n".join(lines) + "\n"


def latex(grid: Grid) -> str:
    """Return a grid as a LaTeX table in the form of booktabs, with its footnotes below."""
    columns = len(grid.columns)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}[t]" if columns >= _WIDE_FROM else r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(grid.title)}}}",
        rf"\label{{tab:{re.sub('[^a-zA-Z0-9]+', '-', grid.name)}}}",
    ]
    if columns >= _WIDE_FROM:
        lines += [r"\scriptsize", r"\setlength{\tabcolsep}{2.5pt}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
    if grid.groups:
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(t)}}}" for t, n in grid.groups]
        lines.append(" & ".join(["", *spans]).lstrip() + r" \\")
        lines.append(" ".join(_rules(grid)))
    head = [f"{escape_latex(c.label)} {_ARROWS[c.arrow]}".rstrip() for c in grid.columns]
    lines += [" & ".join(["Model", *head]) + r" \\", r"\midrule"]
    for name, entries in grid.rows:
        lines.append(" & ".join([escape_latex(name), *map(_latex_entry, entries)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if grid.footnotes:
        notes = [
            (rf"\textsuperscript{{{mark}}} " if mark else "") + escape_latex(text)
            for mark, text in grid.footnotes
        ]
        lines += ["", r"\smallskip", r"{\footnotesize " + "; ".join(notes) + ".}"]
    lines.append(r"\end{table*}" if columns >= _WIDE_FROM else r"\end{table}")
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return a text of others that Markdown shows as it is, in a table too."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Return a text of others that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def _rules(grid: Grid) -> list[str]:
    rules = []
    first = 2
    for _, count in grid.groups:
        rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
        first += count
    return rules


def _markdown_entry(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.is_best else entry.text
    return text + (f"<sup>{','.join(entry.marks)}</sup>" if entry.marks else "")


def _latex_entry(entry: Entry) -> str:
    text = escape_latex(entry.text)
    text = rf"\textbf{{{text}}}" if entry.is_best else text
    return text + (rf"\textsuperscript{{{','.join(entry.marks)}}}" if entry.marks else "")
