"""Write a model folder's weights for PyTorch.

The file is a plain state_dict with the reference's names, for ``model.load_state_dict``; importing
it again gives the same bits.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lska_jax.models.table import family_of, load_capability
from lska_jax.running.whole_file import whole_file
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.safetensors_file import save_safetensors
from lska_jax.weights.state_dict import name_arrays


def export_checkpoint(
    folder: str | Path, out: str | Path, *, naming: str = "", overwrite: bool = False
) -> list[str]:
    """Write a model folder's weights as a PyTorch state_dict.

    Args:
      folder: a model folder.
      out: .pth, .pt, .bin or .pth.tar (written by PyTorch), or .safetensors.
      naming: one of the family's namings, for VAN "reference", "detection" or "hugging_face"; "" is
        its first.
      overwrite: replace a file that is there.

    Returns:
      What a user of the file has to know, one sentence each.

    Raises:
      ValueError: a damaged folder, an unknown suffix or naming, or a naming without names for this
        model.
      FileNotFoundError: ``folder`` is no model folder.
      FileExistsError: the file is there.
      ImportError: a PyTorch file, and PyTorch is not installed.
    """
    out = Path(out)
    if not out.name.lower().endswith((".pth", ".pt", ".bin", ".pth.tar", ".safetensors")):
        raise ValueError(f"{out} must end in .pth, .pth.tar, .pt, .bin or .safetensors.")
    if out.exists() and not (overwrite and out.is_file()):
        raise FileExistsError(f"{out} is there; choose another name, or pass --overwrite.")
    facts, arrays = read_model_folder(folder)
    state_dict = name_arrays(facts.config, arrays, naming=naming)
    save_state_dict(out, state_dict)
    names = load_capability(family_of(facts.config), "names")
    return names.export_notes(naming or names.namings[0], facts.config)


def save_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Write a state_dict, complete or not at all; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.touch()
        if path.suffix.lower() == ".safetensors":
            save_safetensors(beside, state_dict, metadata={"format": "pt"})
        else:
            _save_torch(beside, state_dict, path)


def _save_torch(beside: Path, state_dict: Mapping[str, np.ndarray], path: Path) -> None:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Writing {path} needs PyTorch: pip install 'lska-jax[torch]', or write a .safetensors "
            "file, which needs none."
        ) from error
    # Copies: PyTorch wants writable memory.
    copies = {n: torch.from_numpy(np.array(a)) for n, a in state_dict.items()}
    try:
        torch.save(copies, beside)
    except RuntimeError as error:
        # PyTorch's error for all that the system refuses.
        raise OSError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
