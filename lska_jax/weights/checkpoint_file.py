"""One checkpoint -> {name: array}: which format, which nesting, which of several networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.models.heads import BACKBONE
from lska_jax.weights.class_names import StatedClasses, read_stated_classes
from lska_jax.weights.conversion import StoredArray
from lska_jax.weights.names.dense import recognise_head
from lska_jax.weights.names.rows import COUNTER
from lska_jax.weights.safetensors_file import open_safetensors
from lska_jax.weights.shards import INDEX_SUFFIX, is_index, open_shards, refuse_single_shard
from lska_jax.weights.torch_file import open_torch
from lska_jax.weights.wrappers import AVERAGED_COUNTER, unwrap

SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".safetensors", INDEX_SUFFIX)

# Where training scripts keep the weights, in the order in which they are looked for.
_OWN_WEIGHTS = ("state_dict", "model", "model_state_dict")
_AVERAGED_WEIGHTS = ("state_dict_ema", "model_ema", "ema")
_MAX_NESTING = 4


class Checkpoint(NamedTuple):
    """The weights in a file.

    Attributes:
      arrays: {name: array}, without wrappers' prefixes.
      notes: what was chosen or left out, one sentence each.
      is_averaged: whether the weights are an average over training.
      classes: what the file says of them.
    """

    arrays: dict[str, StoredArray]
    notes: list[str]
    is_averaged: bool = False
    classes: StatedClasses = StatedClasses()


def open_checkpoint(
    path: str | Path,
    *,
    use_ema: bool = False,
    with_head: bool = False,
    root: Path | None = None,
) -> Checkpoint:
    """Open a PyTorch or safetensors file and find the weights in it.

    Args:
      path: .pth, .pth.tar, .pt, .bin or .safetensors; the content decides, not the name. Or the
        .index.json of a checkpoint in several files.
      use_ema: take the averaged weights (state_dict_ema), not the trained ones, where there are
        both.
      with_head: take a segmentor's or detector's head too, where it is known; its backbone's names
        keep their prefix then. Otherwise the backbone alone is taken.
      root: the folder that an index's files may be links into; None is its own.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a PyTorch file, and PyTorch is not installed.
      ValueError: a folder, a damaged file, one of several, a file that holds code, or one without
        weights.
    """
    path = Path(path)
    _check_is_file(path)
    refuse_single_shard(path)
    content = open_shards(path, _open_file, root=root) if is_index(path) else _open_file(path)
    notes: list[str] = []
    classes = read_stated_classes(content)
    read = ("meta",) if classes.names else ()
    weights, is_averaged = _find_weights(content, path, use_ema=use_ema, notes=notes, read=read)
    tensors = _tensors_of(weights, path)
    network = unwrap(list(tensors), path, use_average=use_ema)
    if use_ema and not (is_averaged or network.is_averaged):
        raise ValueError(
            f"{path} holds no averaged weights ({', '.join(_AVERAGED_WEIGHTS)}); it has: "
            f"{_shown(weights)}. Leave out --ema."
        )
    arrays = {name: tensors[old] for name, old in network.names.items()}
    notes += network.notes
    if with_head and recognise_head(network.beside):
        arrays = {f"{BACKBONE}.{name}": array for name, array in arrays.items()}
        arrays |= {name: tensors[old] for name, old in network.beside.items()}
    elif network.left_out:
        notes.append(network.left_out)
    return Checkpoint(arrays, notes, is_averaged or network.is_averaged, classes)


def _open_file(path: Path) -> Any:
    return open_safetensors(path) if _is_safetensors(path) else open_torch(path)


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
    content: Any, path: Path, *, use_ema: bool, notes: list[str], read: tuple[str, ...]
) -> tuple[Mapping[Any, Any], bool]:
    """Descend to the dictionary of arrays; the second value tells whether it is an average.

    Args:
      content: of the file.
      path: of the file.
      use_ema: take the average.
      notes: what was chosen is added to them.
      read: what beside the arrays is read.
    """
    where: list[str] = []
    is_averaged = False
    for _ in range(_MAX_NESTING):
        if not isinstance(content, Mapping):
            break
        own = [key for key in _OWN_WEIGHTS if isinstance(content.get(key), Mapping)]
        averaged = [key for key in _AVERAGED_WEIGHTS if isinstance(content.get(key), Mapping)]
        if not own and not averaged:
            break
        takes_average = bool(averaged) and (not own or use_ema and not is_averaged)
        chosen = (averaged if takes_average else own)[0]
        if averaged and not takes_average:
            notes.append(
                f"{path.name} also holds averaged weights ({averaged[0]}); --ema takes them."
            )
        elif averaged and not use_ema:
            notes.append(f"{path.name} holds averaged weights only ({averaged[0]}).")
        is_averaged = is_averaged or takes_average
        where.append(chosen)
        beside = sorted(str(key) for key in content if key not in (chosen, *read))
        if beside:
            notes.append(f"Took {'/'.join(where)}; not read: {', '.join(beside)}.")
        content = content[chosen]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, no state_dict"
            f"{' in ' + '/'.join(where) if where else ''}."
        )
    return content, is_averaged


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
        if not isinstance(value, StoredArray) and not name.endswith((COUNTER, AVERAGED_COUNTER))
    ]
    if others:
        raise ValueError(
            f"{path} is no plain state_dict; these are no tensors:\n  " + "\n  ".join(others)
        )
    if not weights:
        raise ValueError(f"{path} holds an empty state_dict.")
    return {name: value for name, value in weights.items() if isinstance(value, StoredArray)}
