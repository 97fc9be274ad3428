"""One checkpoint file -> {name: array}: which format, which nesting, which prefixes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.names.recognition import full_names, is_known
from lska_jax.weights.names.rows import COUNTER
from lska_jax.weights.safetensors_file import open_safetensors
from lska_jax.weights.torch_file import open_torch

SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".safetensors")

# Where training scripts keep the weights, in the order in which they are looked for.
_OWN_WEIGHTS = ("state_dict", "model", "model_state_dict")
_AVERAGED_WEIGHTS = ("state_dict_ema", "model_ema", "ema")
# Left by data parallelism, torch.compile and training frameworks, on every name or on none.
_WRAPPERS = ("state_dict.", "module.", "_orig_mod.", "model.")
_BACKBONE = "backbone."
# The classifier beside a backbone, as classification frameworks name it.
_HEADS = {
    **{"head.weight": "head.weight", "head.bias": "head.bias"},
    **{"head.fc.weight": "head.weight", "head.fc.bias": "head.bias"},
}
_MAX_NESTING = 4


class Checkpoint(NamedTuple):
    """The weights in a file.

    Attributes:
      arrays: {name: array}, without wrappers' prefixes.
      notes: what was chosen or left out, one sentence each.
    """

    arrays: dict[str, StoredArray]
    notes: list[str]


def open_checkpoint(path: str | Path, *, use_ema: bool = False) -> Checkpoint:
    """Open a PyTorch or safetensors file and find the weights in it.

    Args:
      path: .pth, .pth.tar, .pt, .bin or .safetensors; the content decides, not the name.
      use_ema: take the averaged weights (state_dict_ema), not the trained ones, where there are
        both.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a PyTorch file, and PyTorch is not installed.
      ValueError: a folder, a damaged file, a file that holds code, or one without weights.
    """
    path = Path(path)
    _check_is_file(path)
    content = open_safetensors(path) if _is_safetensors(path) else open_torch(path)
    notes: list[str] = []
    weights = _find_weights(content, path, use_ema=use_ema, notes=notes)
    return Checkpoint(_plain_names(_tensors_of(weights, path), path, notes), notes)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.name.lower().endswith(SUFFIXES))
        hint = f"Give one of its files: {', '.join(inside)}." if inside else "Give a file."
        raise ValueError(f"{path} is a folder, not a checkpoint. {hint}")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is no ordinary file.")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path} is empty.")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer; download the weights that it stands for.")
    if start[257:262] == b"ustar":
        raise ValueError(
            f"{path} is a tar archive, no checkpoint: extract it (PyTorch's .pth.tar is none)."
        )
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page, not a checkpoint: the download went wrong.")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    is_torch = start.startswith((b"PK", b"\x80"))
    return path.suffix.lower() == ".safetensors" and not is_torch or start[8:9] == b"{"


def _find_weights(
    content: Any, path: Path, *, use_ema: bool, notes: list[str]
) -> Mapping[Any, Any]:
    """Descend to the dictionary of arrays."""
    where: list[str] = []
    for _ in range(_MAX_NESTING):
        if not isinstance(content, Mapping):
            break
        own = [key for key in _OWN_WEIGHTS if isinstance(content.get(key), Mapping)]
        averaged = [key for key in _AVERAGED_WEIGHTS if isinstance(content.get(key), Mapping)]
        if use_ema and averaged:
            chosen, use_ema = averaged[0], False
        elif own or averaged:
            chosen = (own or averaged)[0]
            if averaged and own:
                notes.append(
                    f"{path.name} also holds averaged weights ({averaged[0]}); --ema takes them."
                )
            elif averaged:
                notes.append(f"{path.name} holds averaged weights only ({averaged[0]}).")
                use_ema = False
        else:
            break
        where.append(chosen)
        beside = sorted(str(key) for key in content if key != chosen)
        if beside:
            notes.append(f"Took {'/'.join(where)}; not read: {', '.join(beside)}.")
        content = content[chosen]
    if use_ema:
        raise ValueError(
            f"{path} holds no averaged weights ({', '.join(_AVERAGED_WEIGHTS)}); it has: "
            f"{_shown(content)}. Leave out --ema."
        )
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, no state_dict"
            f"{' in ' + '/'.join(where) if where else ''}."
        )
    return content


def _shown(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    names = [str(name) for name in content]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _tensors_of(weights: Mapping[Any, Any], path: Path) -> dict[str, StoredArray]:
    wrong = [repr(name) for name in weights if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{path}: names of arrays must be text, got {', '.join(wrong[:10])}.")
    others = [
        f"{name} ({type(value).__name__})"
        for name, value in weights.items()
        if not isinstance(value, StoredArray) and not name.endswith(COUNTER)
    ]
    if others:
        raise ValueError(
            f"{path} is no plain state_dict; these are no tensors:\n  " + "\n  ".join(others)
        )
    if not weights:
        raise ValueError(f"{path} holds an empty state_dict.")
    return {name: value for name, value in weights.items() if isinstance(value, StoredArray)}


def _plain_names(
    arrays: Mapping[str, StoredArray], path: Path, notes: list[str]
) -> dict[str, StoredArray]:
    """Take the prefixes of wrappers off the names."""
    names = {name: name for name in arrays}
    while True:
        prefix = next((p for p in _WRAPPERS if _is_on_all(p, names)), None)
        if prefix is not None:
            names = {name.removeprefix(prefix): old for name, old in names.items()}
        elif any(name.startswith(_BACKBONE) for name in names):
            names = _of_backbone(names, path, notes)
        else:
            break
    full = full_names(list(names))
    return {name: arrays[old] for name, old in zip(full, names.values(), strict=True)}


def _is_on_all(prefix: str, names: Mapping[str, str]) -> bool:
    return bool(names) and all(n.startswith(prefix) and n != prefix for n in names)


def _of_backbone(names: Mapping[str, str], path: Path, notes: list[str]) -> dict[str, str]:
    """Keep a detector's backbone, and a classifier beside it."""
    kept: dict[str, str] = {}
    aside = []
    for name, old in names.items():
        plain = _HEADS.get(name, "")
        if name.startswith(_BACKBONE):
            plain = name.removeprefix(_BACKBONE)
        if not plain:
            aside.append(name)
        elif plain in kept:
            raise ValueError(f"{path} gives {plain} twice: as {kept[plain]} and as {old}.")
        else:
            kept[plain] = old
    if aside:
        parts = Counter(name.split(".")[0] for name in aside)
        listed = ", ".join(f"{part} ({count})" for part, count in parts.items())
        notes.append(f"Took the backbone; not read beside it: {listed} arrays.")
        unprefixed = [name for name in aside if is_known(name)]
        if unprefixed:
            raise ValueError(
                f"{path} has a network's weights with {_BACKBONE!r} in front and others "
                f"without: {', '.join(unprefixed[:10])}."
            )
    return kept
