"""Write a model folder as one compiled-anywhere file: ``python -m lska_jax.weights.export_jax``.

    python -m lska_jax.weights.export_jax MODEL_DIR OUT.jaxexport

The file holds the network as StableHLO for CPU, CUDA and TPU, weights included, for any batch size,
and runs without this package:

    import jax.export
    exported = jax.export.deserialize(open("OUT.jaxexport", "rb").read())
    logits = exported.call(images)    # (B, image_size, image_size, C) float32, normalised
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from lska_jax.nn.fold import FoldedVAN, fold_batch_norm
from lska_jax.nn.van import VAN
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.pretrained import arrays_of, build_from_arrays

PLATFORMS = ("cpu", "cuda", "tpu")
# The one formulation that every backend takes; "auto" would choose for the exporting machine.
_IMPLEMENTATION = "xla"
USAGE_ERROR = 2


def export_model(
    model: VAN, *, image_size: int | None = None, platforms: Sequence[str] = PLATFORMS
) -> export.Exported:
    """Export a model's evaluation for several platforms at once, with a symbolic batch.

    BatchNorm is folded, and the arrays are constants of the artifact.

    Args:
      model: a VAN, not folded.
      image_size: side of the square images; None is that of the model's preprocessing.
      platforms: of "cpu", "cuda", "rocm", "tpu".

    Returns:
      An export whose ``call`` maps images (B, S, S, C) float32, normalised, to what the model
      returns; write it with ``serialize()``.
    """
    size = image_size or model.preprocessing.image_size
    folded = portable_model(model)
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, model.config.in_channels), jnp.float32)
    return export.export(jax.jit(lambda images: folded(images)), platforms=tuple(platforms))(images)


def portable_model(model: VAN) -> FoldedVAN:
    """Return a model folded, with the formulation of convolutions that every backend takes."""
    config = dataclasses.replace(model.config, implementation=_IMPLEMENTATION)
    portable = build_from_arrays(config, arrays_of(model), rngs=nnx.Rngs(0))
    portable.preprocessing = model.preprocessing
    return fold_batch_norm(portable)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    parser = argparse.ArgumentParser("python -m lska_jax.weights.export_jax", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
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
        data = export_model(model, image_size=arguments.image_size).serialize()
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(out)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return USAGE_ERROR
    size = arguments.image_size or facts.preprocessing.image_size
    print(
        f"Wrote {out}, {len(data) / 1e6:.1f} MB, for {', '.join(PLATFORMS)}: images "
        f"(batch, {size}, {size}, {facts.config.in_channels}) float32, any batch; normalise them "
        f"with mean {facts.preprocessing.mean} and std {facts.preprocessing.std}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
