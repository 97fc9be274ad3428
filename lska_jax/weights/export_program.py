"""A model folder as one file that holds the whole network: jax.export's or ONNX."""

from pathlib import Path

from flax import nnx

from lska_jax.running.whole_file import whole_file
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.onnx_engines import find_engine
from lska_jax.weights.pretrained import build_from_arrays


def export_program(
    folder: str | Path,
    out: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    overwrite: bool = False,
) -> str:
    """Write a model folder's evaluation as a program with its weights, complete or not at all.

    Args:
      folder: a model folder.
      out: .jaxexport or .onnx.
      image_size: side of the square images, or of .jaxexport height and width; None is the model's
        own.
      overwrite: replace a file that is there.

    Returns:
      What a user of the file has to know.

    Raises:
      ValueError: a damaged folder, an unknown suffix, or an image size below 1.
      FileNotFoundError: ``folder`` is no model folder.
      FileExistsError: the file is there.
      OSError: it cannot be written; that is found out before the work.
      ImportError: ONNX's packages are not installed; that is found out before the work, too.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix not in (".jaxexport", ".onnx"):
        raise ValueError(f"{out} must end in .jaxexport or .onnx.")
    if out.exists() and not (overwrite and out.is_file()):
        raise FileExistsError(f"{out} is there; choose another name, or pass --overwrite.")
    engine = find_engine() if suffix == ".onnx" else ""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sides is not None and min(sides) < 1:
        raise ValueError(f"image_size must be positive, got {image_size}.")
    facts, arrays = read_model_folder(folder)
    model = build_from_arrays(facts.config, arrays, rngs=nnx.Rngs(0))
    model.preprocessing = facts.preprocessing
    height, width = sides or (facts.preprocessing.image_size,) * 2
    if suffix == ".onnx" and height != width:
        raise ValueError(f"image_size={height}x{width}: .onnx takes square images, give one side.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as beside:
        # Before the work, which takes minutes: a place that cannot be written costs none.
        beside.touch()
        if suffix == ".onnx":
            from lska_jax.weights.export_onnx import export_onnx

            data = export_onnx(model, image_size=height, facts=facts, engine=engine)
            beside.write_bytes(data)
            return (
                f"compared with the model in {engine}: images (batch, {height}, {width}, "
                f"{facts.config.in_channels}) float32, any batch, normalised."
            )
        from lska_jax.weights.export_jax import PLATFORMS, export_model

        beside.write_bytes(export_model(model, image_size=(height, width)).serialize())
    return (
        f"for {', '.join(PLATFORMS)}: images (batch, {height}, {width}, "
        f"{facts.config.in_channels}) float32, any batch; normalise them with mean "
        f"{facts.preprocessing.mean} and std {facts.preprocessing.std}."
    )
