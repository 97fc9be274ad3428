"""``lska-jax explain``: pictures of what a model looks at and how far it sees."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lska_jax.commands import frame

_DESCRIPTION = """\
Draw what a model looks at in photos: Grad-CAM and the occlusion map of the most probable class, the
large-kernel gate of every block (VAN), attention rollout (ViT, DeiT, Swin), and the effective
receptive field of every map, over all photos, with the squares that hold 20, 30, 50 and 99 % of it.

DIR then holds a captioned PNG for each, the numbers (explain.npz, receptive_field.csv), and
explain.html, which shows everything. With --compare, receptive fields of several models are drawn
in one figure, against k where they differ in it."""

_EXAMPLES = (
    "lska-jax explain lska_35 cat.jpg dog.jpg --out explained",
    "lska-jax explain lska_35 cat.jpg --out explained --methods gradcam,gates --label tabby",
    "lska-jax explain k7 photos/ --compare k23 k53 --image_size 512 --out growth",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _explain, argv)


def _explain(arguments: argparse.Namespace) -> None:
    from lska_jax.analysis.explain import explain
    from lska_jax.tasks.predict import find_images

    images = find_images(arguments.images)
    frame.settle_jax()
    page = explain(
        arguments.model,
        images,
        out=arguments.out,
        methods=arguments.methods.split(",") if arguments.methods else None,
        label=arguments.label,
        compare=arguments.compare,
        image_size=arguments.image_size,
        max_image_pixels=arguments.max_image_pixels,
        compilation_cache="off",  # as they are kept already, or the process is not ours
        report=frame.remark,
    )
    print(f"Wrote {page}.")


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax explain", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("model", metavar="MODEL", help=frame.MODEL_PLACES)
    add("images", nargs="+", metavar="IMAGE", help="image files and folders of them")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write, made if missing")
    add(
        "--methods",
        metavar="NAMES",
        help="some of gradcam,occlusion,gates,rollout,receptive_field (default: what it has)",
    )
    add("--label", metavar="CLASS", help="number or name of the class (default: the best one)")
    add("--compare", nargs="+", default=(), metavar="MODEL", help="models to draw beside it")
    add(
        "--image_size",
        type=frame.positive(int),
        metavar="PIXELS",
        help="side of the images (default: as the model's are prepared)",
    )
    frame.add_max_image_pixels(parser)
    return parser
