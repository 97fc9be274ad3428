"""Write the tables of docs/families.md: ``python -m benchmarks.named_models``.

One table a family, with a row for each of its named models: cost counted from the network's trace,
the rest as the package has it. A test compares the page with what is made here.
"""

import re
from pathlib import Path
from typing import Any

from benchmarks.results import markdown_table
from lska_jax.models.table import Family, Preprocessing, families
from lska_jax.models.weight_tags import WeightTag, weights_of

PAGE = Path("docs/families.md")
HEADER = (
    *("Model", "Parameters, M", "GMACs", "Images", "Mean and std, crop"),
    *("Weights", "Where the first are"),
)
_BLOCK = re.compile(r"(<!-- table: (?P<family>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_IMAGENET = (0.485, 0.456, 0.406)


def main() -> None:
    """Rewrite the tables of the page."""
    PAGE.write_text(filled(PAGE.read_text()))


def filled(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{_table(found['family'])}\n\n{found[3]}", text)


def row(family: Family, model: str) -> list[str]:
    """Return a named model's row of the table, see ``HEADER``."""
    from lska_jax.analysis.complexity import network_cost

    config = family.config(**family.models[model])
    cost = network_cost(config)
    prepared = family.preprocessings.get(model, family.preprocessing)
    tags = list(weights_of(model).values())
    return [
        f"`{model}`",
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.macs / 1e9:.2f}",
        _sides(family, config),
        _preprocessing(prepared),
        ", ".join(f"`{tag.tag}`" for tag in tags) or "none",
        _place(tags[0]) if tags else "",
    ]


def _table(family: str) -> str:
    found = families()[family]
    return markdown_table(HEADER, [row(found, model) for model in found.models])


def _sides(family: Family, config: Any) -> str:
    multiple = family.image_multiple(vars(config))
    if multiple > 1:
        return f"multiples of {multiple}"
    return f"from {config.least_side}" if config.least_side > 1 else "any"


def _preprocessing(prepared: Preprocessing) -> str:
    mean = "ImageNet's" if prepared.mean == _IMAGENET else f"{prepared.mean[0]}"
    return f"{mean}, {prepared.crop_pct:g}"


def _place(tag: WeightTag) -> str:
    return f"`{'/'.join(filter(None, (tag.hub, tag.file)))}`" if tag.hub else tag.place


if __name__ == "__main__":
    main()
