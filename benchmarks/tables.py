"""Write the measured tables of the documents: ``python -m benchmarks.tables``.

docs/performance/*.md hold the full tables, docs/performance.md the goals and one short table a
claim, docs/science.md and docs/comparison.md what small networks that were trained gave. Each has a
pair of comments, and what stands between them is made from the JSON files beside the pictures and
from the package's own table, so that no figure is typed by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    accelerator,
    claims,
    compiler_options,
    corruptions,
    cost_against_k,
    cost_tables,
    dense_ops,
    engines,
    families,
    family_tables,
    fine_tuning,
    first_answer,
    first_step,
    formulation_tables,
    goals,
    huge_pages,
    model,
    ops,
    reading,
    segmentor,
    stage_choices,
    starts,
    tpu_tables,
    trained_tables,
)
from benchmarks.results import DEFAULT_FOLDER, NOT_YET_RUN, VARIABLE, WAIT_POLICY, read_result

_BLOCK = re.compile(r"(<!-- table: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite the tables of all documents."""
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the JSON files")
    options = parser.parse_args(argv)
    for document in documents():
        document.write_text(filled(document.read_text(), options.out))


def documents() -> list[Path]:
    """Return the documents that have tables: of claims, families, science, and the full tables."""
    pages = [DEFAULT_FOLDER.with_suffix(".md")]
    others = (
        "comparison",
        "data",
        "results",
        "robustness/corruptions",
        "science",
        "your_own_photos",
    )
    pages += [DEFAULT_FOLDER.parent / f"{name}.md" for name in others]
    return [*pages, *sorted(DEFAULT_FOLDER.glob("*.md"))]


def filled(text: str, folder: Path) -> str:
    """Return a document's text with its tables made from the JSON files of a folder.

    Raises:
      ValueError: a table that no benchmark makes, or figures of a --quick run.
    """
    made = _all_tables(folder)
    return _BLOCK.sub(
        lambda match: f"{match[1]}\n{_table(match['name'], made)}\n\n{match[3]}", text
    )


def _table(name: str, made: dict[str, dict[str, str]]) -> str:
    if name in claims.CLAIMS:
        full = claims.CLAIMS[name].table
        is_made = full.split()[0] in made
        return claims.excerpt(name, _table(full, made)) if is_made else _sentence(NOT_YET_RUN)
    benchmark = name.split()[0]
    if benchmark not in _NAMES:
        raise ValueError(
            f"No benchmark makes the table {name!r}; those of {', '.join(_NAMES)} are made, and "
            f"{', '.join(claims.CLAIMS)}."
        )
    if benchmark in made and name not in made[benchmark]:
        raise ValueError(f"{benchmark} makes {', '.join(made[benchmark])}; not {name!r}.")
    return made[benchmark][name] if benchmark in made else _sentence(NOT_YET_RUN)


# By the name of a file: what makes its tables, and needs nothing but its own rows.
_TABLES: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    **{
        module.NAME: module.tables
        for module in (
            *(ops, model, huge_pages, first_step, first_answer, accelerator),
            *(dense_ops, segmentor, stage_choices, fine_tuning, starts, reading, corruptions),
        )
    },
    **dict.fromkeys(engines.NAMES, engines.tables),
    **dict.fromkeys(compiler_options.NAMES, compiler_options.tables),
    families.NAME: family_tables.tables,
}
_MEASURED = (*_TABLES, cost_against_k.NAME, cost_against_k.TPU_NAME)
_NAMES = (
    *_MEASURED,
    tpu_tables.NAME,
    formulation_tables.NAME,
    family_tables.PUBLISHED,
    goals.NAME,
    claims.NAME,
    *trained_tables.STUDIES,
    *trained_tables.NETWORK_STUDIES,
)


def _all_tables(folder: Path) -> dict[str, dict[str, str]]:
    """Return {benchmark: {name of the table: Markdown}} of what was run."""
    found = {}
    for name in _MEASURED:
        result = read_result(folder, name)
        if result is None:
            continue
        found[name] = {f"{name} conditions": _conditions(result["conditions"])}
        if (folder / f"{name}.png").exists():
            place = f"performance/{name}.png" if name == families.NAME else f"{name}.png"
            picture = f"\n\n![{name}]({place})"
            found[name][f"{name} conditions"] += picture
        if name in _TABLES:
            found[name] |= _TABLES[name](result)
    if cost_against_k.NAME in found:
        rows = cost_tables.read(folder, is_quick=False)
        found[cost_against_k.NAME] |= cost_tables.tables(*rows)
    compiled = tpu_tables.tables(folder)
    if compiled:
        found[tpu_tables.NAME] = compiled
    found |= trained_tables.all_tables(folder.with_name(trained_tables.FOLDER.name))
    found[formulation_tables.NAME] = formulation_tables.tables()
    found[family_tables.PUBLISHED] = {family_tables.PUBLISHED: family_tables.published()}
    if set(engines.NAMES) & set(found):
        found[claims.NAME] = {claims.ENGINES: claims.engine_table(folder)}
    return {**found, goals.NAME: goals.tables(folder)}


def _conditions(conditions: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    loads = [f"{conditions[when][0]:.1f}" for when in ("load_at_start", "load_at_end")]
    return (
        f"`{conditions['command']}`, {conditions['date'][:10]}, commit {conditions['commit']}: "
        f"{conditions['cores']} cores of "
        f"{conditions['processor']}, {conditions['threads']}, load {loads[0]} at the start and "
        f"{loads[1]} at the end, {VARIABLE} {conditions[VARIABLE]}, {WAIT_POLICY} "
        f"{conditions[WAIT_POLICY]}, {conditions['dtype']}; "
        f"{versions}."
    )


def _sentence(words: str) -> str:
    return f"{words.capitalize()}."


if __name__ == "__main__":
    main(sys.argv[1:])
