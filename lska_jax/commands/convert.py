"""``lska-jax import``: turn a PyTorch checkpoint into a model folder."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from lska_jax.commands import frame

_DESCRIPTION = """\
Turn a PyTorch checkpoint into a model folder.

Reads .pth, .pth.tar, .pt and .bin files (with PyTorch, as data and never as code) and .safetensors
files, in one piece or several, with the names of the reference code, of timm, of transformers or of
detection and segmentation copies, whatever prefix is in front of them. Family and sizes are read
off names and shapes unless they are given. The preprocessing is that of --weights. Either every
array fits, or all that do not are listed and nothing is written."""

_EXAMPLES = (
    "lska-jax import van_tiny.pth.tar --out van_tiny",
    "lska-jax import convnext_tiny_1k_224_ema.pth --out convnext_tiny --weights fb_in1k",
    "lska-jax import model.safetensors --out lska_35 --model van_lska_tiny --k 35",
    "lska-jax import swin_384.safetensors --out swin --field image_size=384 --field window=12",
    "lska-jax import finetuned.pth --out flowers --labels flowers.txt --license apache-2.0",
)

# Fields, and arguments of the import, that a --field would give a second time.
_OPTIONS = (
    *("model", "k", "dilation", "weights", "preprocessing", "num_classes", "license", "source"),
    *("sha256", "overwrite", "labels", "class_names", "use_ema", "report"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake or a file that does not fit ends in one readable message."""
    return frame.run(_build_parser(), _import, argv)


def _import(arguments: argparse.Namespace) -> None:
    from lska_jax.weights.class_names import read_names
    from lska_jax.weights.import_torch import import_checkpoint

    labels, out = arguments.labels, arguments.out
    import_checkpoint(
        arguments.checkpoint,
        out,
        model=arguments.model,
        k=arguments.k,
        dilation=arguments.dilation,
        use_ema=arguments.ema,
        weights=arguments.weights,
        preprocessing=arguments.preprocessing,
        num_classes=arguments.num_classes,
        class_names=() if labels == "none" else labels and read_names(labels),
        license=arguments.license,
        source=arguments.source,
        sha256=arguments.sha256,
        overwrite=arguments.overwrite,
        **dict(arguments.field),
    )
    frame.say_written_model(out)


def _field(text: str) -> tuple[str, Any]:
    """Return name and value of a field: a Python literal, or else the text itself."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE, such as image_size=384")
    if name in _OPTIONS:
        raise argparse.ArgumentTypeError(f"{text!r}: --{name} is an option of its own")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax import", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add(
        "checkpoint",
        metavar="CHECKPOINT",
        help=".pth, .pth.tar, .pt, .bin, .safetensors, the .index.json of one in several files, or "
        "a folder as timm and transformers publish it",
    )
    add("--out", required=True, metavar="DIR", help="model folder to write")
    add("--model", metavar="NAME", help="such as van_lska_tiny (default: read off the shapes)")
    add("--k", type=int, help="extent of the large kernel (default: read off the shapes)")
    add("--dilation", type=int, metavar="D", help="if it is not the reference's for k")
    add("--ema", action="store_true", help="take the averaged weights")
    add(
        "--weights",
        metavar="TAG",
        help="which published weights these are or descend from, such as fb_in1k: their "
        "preprocessing and licence; needed where those of a model want different ones",
    )
    add(
        "--preprocessing",
        metavar="NAME",
        help="in place of --weights; of VAN reference (mean and std of 0.5) or imagenet (default: "
        "what these weights were trained with)",
    )
    add("--num_classes", type=int, metavar="N", help="0 leaves the classifier out")
    add("--labels", metavar="FILE", help="class names, one a line; none for no names")
    add(
        "--license",
        default="unknown",
        metavar="TEXT",
        help="license of the weights (default: that of --weights)",
    )
    add("--source", default="", metavar="TEXT", help="where the file comes from, for the card")
    add("--sha256", default="", metavar="HEX", help="of CHECKPOINT, to be verified")
    add(
        "--field",
        action="append",
        default=[],
        type=_field,
        metavar="NAME=VALUE",
        help="a field of the network's config that no shape shows, such as image_size=384 of a "
        "Swin or stem_stride=2 of a VAN; may be repeated (default: the model's own)",
    )
    add("--overwrite", action="store_true", help="replace an existing model folder")
    return parser
