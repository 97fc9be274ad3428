"""The catalogue for people: ``lska-jax robustness --list`` and the table of the docs."""

from lska_jax.robustness.sets.catalogue import SETS, find_set, set_cells, suites


def describe_all() -> str:
    """Return a line about each suite and a paragraph about each set."""
    lines = [f"suite {name}: {', '.join(members)}" for name, members in suites().items()]
    return "\n\n".join(["\n".join(lines), *map(describe_set, SETS)])


def describe_set(name: str) -> str:
    """Return a paragraph about a set, one fact a line.

    Raises:
      ValueError: there is no such set.
    """
    facts = find_set(name)
    cells = len(set_cells(name))
    lines = [
        f"{name}: {facts.title}, {facts.label_space}; {_count(cells, 'cell')} of "
        f"{facts.num_images:,} {facts.unit}",
        f"  from       {facts.where} ({facts.size})",
        f"  put it in  {facts.layout}",
        f"  TFDS       {facts.tfds.name} ({facts.tfds.trap})"
        if facts.tfds
        else "  TFDS       none",
        f"  license    {facts.license or 'not known; see there'}",
        f"  citation   {facts.citation}",
    ]
    if facts.note:
        lines.append(f"  note       {facts.note}")
    return "\n".join(lines)


def markdown_table() -> str:
    """Return the sets as the table of docs/robustness_sets.md."""
    rows = ["| Set | Images | Download | Layout below the data folder | TFDS |"]
    rows.append("|---|---|---|---|---|")
    for name, facts in SETS.items():
        cells = len(set_cells(name))
        images = f"{cells} x {facts.num_images:,}" if cells > 1 else f"{facts.num_images:,}"
        page = facts.where.split()[0]
        tfds = f"`{facts.tfds.name}`" if facts.tfds else "none"
        cells_of_row = (f"`{name}`", images, f"[{facts.size}]({page})")
        rows.append(f"| {' | '.join((*cells_of_row, _code_paths(facts.layout), tfds))} |")
    return "\n".join(rows)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _code_paths(layout: str) -> str:
    """Set paths in code: the words with a slash, a star or a dot inside."""
    words = []
    for word in layout.split():
        core = word.rstrip(",:")
        is_path = any(sign in core.rstrip(".") for sign in "/*.")
        words.append(f"`{core}`{word[len(core) :]}" if is_path else word)
    return " ".join(words)
