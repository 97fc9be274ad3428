"""The command line that ``export_jax`` and ``export_onnx`` share: a model folder -> one file."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flax import nnx

from lska_jax.models.van import VAN
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.pretrained import build_from_arrays

USAGE_ERROR = 2


def run_export_command(
    module: str,
    description: str | None,
    argv: Sequence[str] | None,
    *,
    export: Callable[[VAN, int | None], bytes | bytearray],
    describe: Callable[[ModelFacts, int], str],
) -> int:
    """Run the command and return its exit code; a mistake ends in one readable message.

    Args:
      module: the command, as in ``python -m lska_jax.weights.MODULE``.
      description: what ``--help`` says.
      argv: arguments; None takes the program's.
      export: (model, image size or None for the model's own) -> the file's content.
      describe: (facts of the model folder, image size) -> what stands behind the file's size.
    """
    parser = argparse.ArgumentParser(
        f"python -m lska_jax.weights.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model_dir", help="a model folder")
    parser.add_argument("out", help="file to write")
    parser.add_argument("--image_size", type=int, help="default: the model's own")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    arguments = parser.parse_args(argv)
    out = Path(arguments.out)
    try:
        if out.exists() and not (arguments.overwrite and out.is_file()):
            raise FileExistsError(f"{out} is there; choose another name, or pass --overwrite.")
        if arguments.image_size is not None and arguments.image_size < 1:
            raise ValueError(f"--image_size must be positive, got {arguments.image_size}.")
        facts, arrays = read_model_folder(arguments.model_dir)
        model = build_from_arrays(facts.config, arrays, rngs=nnx.Rngs(0))
        model.preprocessing = facts.preprocessing
        data = export(model, arguments.image_size)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(out)
    except (ValueError, OSError, ImportError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return USAGE_ERROR
    size = arguments.image_size or facts.preprocessing.image_size
    print(f"Wrote {out}, {len(data) / 1e6:.1f} MB, {describe(facts, size)}")
    return 0
