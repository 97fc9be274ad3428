"""``lska-jax weights``: the table of published weights, and fetching them."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lska_jax.commands import frame

if TYPE_CHECKING:
    from lska_jax.models.table import Preprocessing
    from lska_jax.weights.catalogue import Entry

_DESCRIPTION = """\
List the weights that there are, those that come with the package and the published ones of all
families: what create_model(pretrained=NAME), --from and every other place of a model take.

MB are those of the file that comes with the package, else of the parameters in float32. Top-1 is
what timm measured at the tag's size and crop, or (in brackets) the authors, on ImageNet; [in square
brackets] what was measured here, on the test images of the model's own data. Images are pixels a
side / crop, and mean; --csv has all of it. Checked says what was done here: the accuracy of these
weights was measured, before they were rounded to float16; or the network was compared with the
PyTorch original, by its outputs on random weights or by names, shapes and parameters alone.

With --download the weights are fetched into the Hub's cache, where everything finds them later
without a network; an interrupted download goes on where it was, and every file is compared
with the hash that the Hub states."""

_EXAMPLES = (
    "lska-jax weights",
    "lska-jax weights cifar10",
    "lska-jax weights 'convnext_*' --csv weights.csv",
    "lska-jax weights pvt_v2_b0.in1k --download",
)


_KNOWN_MEANS: dict[tuple[float, ...], str] = {(0.485, 0.456, 0.406): "imagenet"}
# Of whom a top-1 is.
_BRACKETS = {"authors": "({:.1f})", "here": "[{:.1f}]"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _weights, argv)


def _weights(arguments: argparse.Namespace) -> None:
    from lska_jax.weights.catalogue import list_entries

    entries = list_entries(arguments.names or ["*"])
    if arguments.download:
        _download(entries)
        return
    if arguments.csv:
        with open(arguments.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _as_row(entries[0]))
            writer.writeheader()
            writer.writerows(map(_as_row, entries))
        print(f"Wrote {arguments.csv}: {len(entries)} sets of weights.")
        return
    _print_table(entries)


def _download(entries: Sequence[Entry]) -> None:
    from lska_jax.weights.hub import find_weights_folder

    for entry in entries:
        if entry.tag is None:
            print(f"{entry.name} {entry.place}.")
            continue
        print(f"{entry.name}: {entry.megabytes:,.0f} MB from {entry.place}")
        located = find_weights_folder(entry.tag)
        print(f"  in {located.folder}")


def _print_table(entries: Sequence[Entry]) -> None:
    from lska_jax.weights.preprocessing_choice import in_words

    head = ("weights", "top-1", "MB", "classes", "images", "licence", "checked", "place")
    rows = [
        (
            entry.name,
            "" if entry.top1 is None else _BRACKETS.get(entry.top1_of, "{:.1f}").format(entry.top1),
            f"{entry.megabytes:,.{0 if entry.megabytes >= 10 else 1}f}",
            f"{entry.num_classes:,}" if entry.num_classes else "none",
            _in_short(entry.preprocessing),
            entry.license,
            entry.checked,
            entry.place,
        )
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    if len(entries) == 1:
        print(f"Images: {in_words(entries[0].preprocessing)}.")
    count = "1 set" if len(entries) == 1 else f"{len(entries)} sets"
    print(f"{count} of weights. Everything about their images: --csv FILE.")


def _in_short(prepared: Preprocessing) -> str:
    """Return pixels, crop and mean in a few letters, as in "224/0.875 imagenet"."""
    crop = f"{prepared.crop_pct:g}" if prepared.crop_mode == "center" else prepared.crop_mode
    same = len(set(prepared.mean)) == 1
    mean = f"{prepared.mean[0]:g}" if same else "/".join(f"{part:g}" for part in prepared.mean)
    return f"{prepared.image_size}/{crop} {_KNOWN_MEANS.get(tuple(prepared.mean), mean)}"


def _as_row(entry: Entry) -> dict[str, Any]:
    prepared = entry.preprocessing._asdict()
    return {
        "name": entry.name,
        "model": entry.model,
        "place": entry.place,
        "license": entry.license,
        "classes": entry.num_classes,
        "parameters": entry.parameters,
        "megabytes": round(entry.megabytes, 1),
        "top1": entry.top1,
        "top1_of": entry.top1_of,
        "checked": entry.checked,
        **{n: " ".join(map(str, v)) if isinstance(v, tuple) else v for n, v in prepared.items()},
    }


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax weights", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="MODEL, MODEL.TAG, or a pattern (default: all)")
    add("--download", action="store_true", help="fetch them into the Hub's cache")
    add("--csv", metavar="FILE", help="write the table, with preprocessing, to a file")
    return parser
