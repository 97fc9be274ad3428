"""Published weights of the named models: where they are, and what their images have to be.

A *tag* names the weights of a model, as in ``convnext_tiny.fb_in1k``: who trained them on what. The
preprocessing belongs to the tag, not to the model. The facts and their sources are in
``weight_tags.json``; no jax here.
"""

import dataclasses
import functools
import json
from importlib import resources
from typing import Any

from lska_jax.models.table import Preprocessing

IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightTag:
    """One set of published weights.

    Attributes:
      model: name of the model.
      tag: name of the weights, such as "fb_in1k".
      hub: repository on the Hugging Face Hub, or "" where there is none.
      file: the file in it, where the repository is no folder of one model.
      place: where people get the weights that are not on the Hub, in words.
      license: an SPDX name, or "unknown".
      num_classes: of their classifier; 0 if they have none.
      preprocessing: of the images.
    """

    model: str
    tag: str
    hub: str = ""
    file: str = ""
    place: str = ""
    license: str
    num_classes: int
    preprocessing: Preprocessing

    @property
    def name(self) -> str:
        """Model and tag, as in "convnext_tiny.fb_in1k"."""
        return f"{self.model}.{self.tag}"


def weights_of(model: str) -> dict[str, WeightTag]:
    """Return the published weights of a named model by tag, the default first; {} if none."""
    return {tag: _weight_tag(model, tag, row) for tag, row in _rows().get(model, {}).items()}


def weight_tag(model: str, tag: str) -> WeightTag:
    """Return one set of published weights.

    Raises:
      ValueError: the model has no such weights; the message lists those that it has.
    """
    tags = weights_of(model)
    if tag not in tags:
        raise ValueError(f"{model} has no weights {tag!r}. {list_tags(model)}")
    return tags[tag]


def default_weights(model: str) -> WeightTag:
    """Return the weights that are meant where no tag is given: timm's default, listed first.

    Raises:
      ValueError: no weights of this model are known.
    """
    tags = weights_of(model)
    if not tags:
        raise ValueError(f"{list_tags(model)} Pass pretrained=FOLDER with a model folder.")
    return next(iter(tags.values()))


def find_tag(text: str) -> WeightTag | None:
    """Return the weights that a text such as "convnext_tiny.fb_in1k" names, or None."""
    model, _, tag = text.partition(".")
    return weights_of(model).get(tag)


def list_tags(model: str) -> str:
    """Return the sentence that lists the weights of a model."""
    tags = weights_of(model)
    if not tags:
        return f"No published weights of {model} are known."
    return f"Published weights of {model}: {', '.join(tags)}."


def measured(model: str, tag: str) -> dict[str, Any]:
    """Return what is published or was measured of some weights, as weight_tags.json has it.

    ``paper_top1`` and ``timm_top1`` in percent, ``parameters``, ``gmacs_224``, where known.
    """
    weight_tag(model, tag)
    row = _rows()[model][tag]
    names = ("paper_top1", "timm_top1", "parameters", "gmacs_224")
    return {name: row[name] for name in names if name in row}


def _weight_tag(model: str, tag: str, row: dict[str, Any]) -> WeightTag:
    given = {name: row.get(name, "") for name in ("hub", "file", "place")}
    prepared = dict(row["preprocessing"])
    prepared |= {name: tuple(prepared[name]) for name in ("mean", "std")}
    return WeightTag(
        model=model,
        tag=tag,
        license=row["license"],
        num_classes=row["num_classes"],
        preprocessing=Preprocessing(**prepared),
        **given,
    )


@functools.cache
def _rows() -> dict[str, dict[str, dict[str, Any]]]:
    file = resources.files("lska_jax.models").joinpath("weight_tags.json")
    rows: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text("utf-8"))["models"]
    return rows
