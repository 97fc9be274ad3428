"""Write the measured tables into docs/performance.md: ``python -m benchmarks.tables``.

The document has a pair of comments for each table, and what stands between them is made from the
JSON files beside its pictures and from the package's own, so that no figure is typed by hand.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    accelerator,
    cost_against_k,
    cost_tables,
    first_step,
    formulation_tables,
    goals,
    huge_pages,
    model,
    ops,
    tpu_tables,
)
from benchmarks.results import DEFAULT_FOLDER, NOT_YET_RUN, VARIABLE, WAIT_POLICY, read_result

DOCUMENT = Path("docs/performance.md")

_BLOCK = re.compile(r"(<!-- table: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite the document's tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the JSON files")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args(argv)
    options.document.write_text(filled(options.document.read_text(), options.out))


def filled(text: str, folder: Path) -> str:
    """Return the document's text with its tables made from the JSON files of a folder.

    Raises:
      ValueError: a table that no benchmark makes, or figures of a --quick run.
    """
    made = _all_tables(folder)

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        benchmark = name.split()[0]
        if benchmark not in _NAMES:
            raise ValueError(
                f"No benchmark makes the table {name!r}; those of {', '.join(_NAMES)} are made."
            )
        if benchmark in made and name not in made[benchmark]:
            raise ValueError(f"{benchmark} makes {', '.join(made[benchmark])}; not {name!r}.")
        table = made[benchmark][name] if benchmark in made else _sentence(NOT_YET_RUN)
        return f"{match[1]}\n{table}\n\n{match[3]}"

    return _BLOCK.sub(replace, text)


_MEASURED = (
    ops.NAME,
    model.NAME,
    cost_against_k.NAME,
    cost_against_k.TPU_NAME,
    huge_pages.NAME,
    first_step.NAME,
    accelerator.NAME,
)
_NAMES = (*_MEASURED, tpu_tables.NAME, formulation_tables.NAME, goals.NAME)


def _all_tables(folder: Path) -> dict[str, dict[str, str]]:
    """Return {benchmark: {name of the table: Markdown}} of what was run."""
    found = {}
    for name in _MEASURED:
        result = read_result(folder, name)
        if result is None:
            continue
        found[name] = {f"{name} conditions": _conditions(result["conditions"])}
        if (folder / f"{name}.png").exists():
            picture = f"\n\n![{name}]({folder.name}/{name}.png)"
            found[name][f"{name} conditions"] += picture
        for module in (ops, model, huge_pages, first_step, accelerator):
            if name == module.NAME:
                found[name] |= module.tables(result)
    if cost_against_k.NAME in found:
        rows = cost_tables.read(folder, is_quick=False)
        found[cost_against_k.NAME] |= cost_tables.tables(*rows)
    compiled = tpu_tables.tables(folder)
    if compiled:
        found[tpu_tables.NAME] = compiled
    found[formulation_tables.NAME] = formulation_tables.tables()
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
