"""``lska-jax export``: write a model for PyTorch, for any JAX, or as ONNX."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lska_jax.commands import frame

_DESCRIPTION = """\
Write a model folder as one file; the suffix of OUT chooses the format.

- .pth, .pth.tar, .pt, .bin or .safetensors: the weights as a plain PyTorch state_dict, with the
  names of --naming. Importing it again gives the same bits. All but .safetensors need PyTorch.
- .jaxexport: the network with its weights as StableHLO for CPU, CUDA and TPU, for any batch size.
  It runs without this package:
      exported = jax.export.deserialize(open(OUT, "rb").read())
      logits = exported.call(images)    # (B, image_size, image_size, C) float32, normalised
  A detector returns a dictionary: boxes in pixels of the images, scores, labels, is_valid, masks.
- .onnx: the same for onnxruntime and OpenVINO, float32 and folded, compared with the model in
  one of them before it is written; it needs onnx and that one. lska-jax predict --engine runs
  it."""

_EXAMPLES = (
    "lska-jax export lska_35 lska_35.safetensors",
    "lska-jax export van_lka van.pth --naming hugging_face",
    "lska-jax export lska_35 lska_35.jaxexport --image_size 256",
    "lska-jax export mask_rcnn mask_rcnn.jaxexport --image_size 800x1344",
    "lska-jax export lska_35 --onnx lska_35.onnx",
)

STATE_DICT_SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".safetensors")
PROGRAM_SUFFIXES = (".jaxexport", ".onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    if (arguments.out is None) == (arguments.onnx is None):
        raise ValueError("Give one file to write: OUT, or --onnx FILE.")
    if arguments.onnx and not arguments.onnx.lower().endswith(".onnx"):
        raise ValueError(f"--onnx {arguments.onnx} must end in .onnx.")
    out = Path(arguments.out or arguments.onnx)
    name = out.name.lower()
    if name.endswith(STATE_DICT_SUFFIXES):
        _export_state_dict(arguments)
    elif name.endswith(PROGRAM_SUFFIXES):
        _export_program(arguments, out)
    else:
        allowed = ", ".join((*STATE_DICT_SUFFIXES, *PROGRAM_SUFFIXES))
        raise ValueError(f"The suffix of {out} names no format; allowed: {allowed}.")


def _export_state_dict(arguments: argparse.Namespace) -> None:
    from lska_jax.weights.export_torch import export_checkpoint

    if arguments.image_size is not None:
        raise ValueError(
            f"--image_size={arguments.image_size} is for {' and '.join(PROGRAM_SUFFIXES)}: a "
            "state_dict has no image size. Leave it out."
        )
    from lska_jax.training.model_places import as_model_folder

    naming = arguments.naming or ""
    with as_model_folder(arguments.model_dir, report=frame.remark) as folder:
        notes = export_checkpoint(
            folder, arguments.out, naming=naming, overwrite=arguments.overwrite
        )
    names = f"names of the naming {naming}" if naming else "the family's first names"
    print(f"Wrote {arguments.out}, a state_dict with {names}.", *notes, sep="\n")


def _export_program(arguments: argparse.Namespace, out: Path) -> None:
    if arguments.naming is not None:
        raise ValueError(
            f"--naming={arguments.naming} is for state_dicts; {out.name} has no names. Leave it "
            "out."
        )
    from lska_jax.training.model_places import as_model_folder
    from lska_jax.weights.export_program import export_program

    with as_model_folder(arguments.model_dir, report=frame.remark) as folder:
        note = export_program(
            folder, out, image_size=arguments.image_size, overwrite=arguments.overwrite
        )
    print(f"Wrote {out}, {out.stat().st_size / 1e6:.1f} MB, {note}")


def _image_size(text: str) -> int | tuple[int, int]:
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} must be pixels, as in 224 or 800x1344")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax export", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("model_dir", metavar="MODEL", help=frame.MODEL_PLACES)
    add("out", nargs="?", metavar="OUT", help="file to write")
    add("--onnx", metavar="FILE", help="the file to write, as ONNX; in place of OUT")
    add(
        "--naming",
        metavar="NAMING",
        help="whose names a state_dict has; of VAN reference, detection or hugging_face "
        "(default: the reference code's)",
    )
    add(
        "--image_size",
        type=_image_size,
        metavar="PIXELS",
        help="side of square images, or of .jaxexport HEIGHTxWIDTH (default: the model's own)",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    return parser
