"""``lska-jax transfer``: carry weights over to another kernel size or attention."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from lska_jax.commands import frame
from lska_jax.models.van_config import ATTENTION_NAMES

_DESCRIPTION = """\
Carry weights over to another kernel size, or from LKA to LSKA: a warm start for fine-tuning, with a
table of how much of each kernel survives. Everything but the large kernels stays as it is.

- Another k of the same dilation: outer taps are added as zeros, which changes nothing, or cut off.
- Another dilation: the new cascade is fitted to the old effective kernel by least squares.
- LKA to LSKA: each 2-D kernel becomes its best rank-1 approximation.

What survives is 1 - |old - new|^2 / |old|^2 of the effective kernel, and of each kernel that has a
counterpart. The last bias takes up what the constant part of the gate would have lost."""

_EXAMPLES = (
    "lska-jax transfer lska_23 --k 35 --out lska_35",
    "lska-jax transfer van_lka --attention lska --out van_lska",
    "lska-jax transfer lska_23 --k 7,11,23,35 --out lska_per_stage",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _transfer, argv)


def _transfer(arguments: argparse.Namespace) -> None:
    from lska_jax.training.model_places import as_model_folder
    from lska_jax.weights.transfer import transfer_folder

    with as_model_folder(arguments.model_dir, report=frame.remark) as folder:
        facts, report = transfer_folder(
            folder,
            arguments.out,
            k=arguments.k,
            attention=arguments.attention,
            dilation=arguments.dilation,
            overwrite=arguments.overwrite,
        )
    print(report)
    print(f"Wrote {arguments.out}: {facts.description}. Use it as a start for fine-tuning:")
    print(f"  lska-jax train --config ... --config.training.finetune_from={arguments.out}")


def _per_stage(convert: type[int] | type[str]) -> Callable[[str], Any]:
    """Return a type of options: one value, or a tuple of several with commas between them."""

    def parse(text: str) -> Any:
        values = tuple(convert(part.strip()) for part in text.split(","))
        return values if len(values) > 1 else values[0]

    # argparse names it in its message.
    parse.__name__ = convert.__name__
    return parse


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax transfer", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("model_dir", metavar="MODEL", help=frame.MODEL_PLACES)
    add("--out", required=True, metavar="DIR", help="model folder to write")
    add(
        "--k",
        type=_per_stage(int),
        metavar="K",
        help="extent of the new kernels, or one for each stage with commas (default: unchanged)",
    )
    add(
        "--attention",
        type=_per_stage(str),
        metavar="NAME",
        help=f"one of {', '.join(ATTENTION_NAMES)}, or one for each stage with commas (default: "
        "unchanged)",
    )
    add("--dilation", type=int, metavar="D", help="default: the reference's for k")
    add("--overwrite", action="store_true", help="replace an existing model folder")
    return parser
