"""Models that come with the package: the folders of ``weights/box``, each under its name.

A path that is there goes before a name, as everywhere: "cifar10" is the file or folder of that name
where there is one, and the model of the package where there is none. "box:cifar10" is always the
latter, "./cifar10" never.
"""

from pathlib import Path

BOX_PREFIX = "box:"
_BOX = Path(__file__).with_name("box")
_CONFIG_NAME = "config.json"


def box_names() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(file.parent.name for file in _BOX.glob(f"*/{_CONFIG_NAME}")))


def find_on_disk(place: str | Path) -> Path | None:
    """Return the file or folder that a place names: a path, or a model of the package.

    This is the one rule for whatever takes a model; what it returns None for may be published
    weights, or an id on the Hub.

    Args:
      place: a path; or as text the name of a model of the package, with "box:" before it or not.

    Raises:
      FileNotFoundError: "box:" before no name of the package.
    """
    text = str(place)
    is_of_box = isinstance(place, str) and text.startswith(BOX_PREFIX)
    if not is_of_box and (path := Path(text).expanduser()).exists():
        return path
    if isinstance(place, str) and (name := text.removeprefix(BOX_PREFIX)) in box_names():
        return _BOX / name
    if is_of_box:
        raise FileNotFoundError(f"There is no model {text}. {list_box()}")
    return None


def list_box() -> str:
    """Return the sentence that lists the models of the package."""
    return f"Models that come with the package: {', '.join(box_names())}."


def explain_hidden(path: Path) -> str:
    """Return what to say of a path that is no model and has the name of one; "" for others."""
    name = str(path)
    if name not in box_names():
        return ""
    return f" The model {name} that comes with the package is {BOX_PREFIX}{name}."
