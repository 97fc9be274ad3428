"""The weights that there are as a table: where, licence, size, images, accuracy.

Those that come with the package, then the published ones of every family.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lska_jax.models.table import Preprocessing, list_models
from lska_jax.models.weight_tags import WeightTag, measured, weights_of
from lska_jax.weights.folder_files import read_object
from lska_jax.weights.in_the_box import BOX_PREFIX, box_names, find_on_disk, list_box
from lska_jax.weights.model_facts import CONFIG_NAME, WEIGHTS_NAME, facts_from_json
from lska_jax.weights.safetensors_file import open_safetensors

BYTES_PER_PARAMETER = 4
OUTPUTS, STRUCTURE, ACCURACY = "outputs", "structure", "accuracy"
# Who says what the accuracy is.
AUTHORS, HERE = "authors", "here"
_STATISTICS = ("/mean", "/var")
# Their logits, on random weights, are compared with their authors' or timm's in the tests
# (docs/parity.md); of the others names, shapes and parameters are.
_OUTPUTS_COMPARED = frozenset(
    {
        *("van_lka_tiny", "van_lka_small", "van_lska_tiny", "van_lska_small"),
        *("convnext_tiny", "convnext_small", "vit_small_patch16_224", "deit_tiny_patch16_224"),
        *("deit_small_patch16_224", "deit_small_distilled_patch16_224"),
        *("deit3_small_patch16_224", "swin_tiny_patch4_window7_224"),
        *("swin_small_patch4_window7_224", "pvt_v2_b0", "pvt_v2_b2", "pvt_v2_b2_li"),
        *("inception_next_tiny", "unireplknet_a", "unireplknet_t"),
    }
)


class Entry(NamedTuple):
    """One set of weights.

    Attributes:
      name: what ``pretrained=`` and the commands take.
      model: name of the network, or what it is in a few words.
      place: where they are, in words.
      license: of the weights.
      num_classes: of their classifier; 0 if they have none.
      preprocessing: of their images.
      parameters: of the network, its classifier included.
      megabytes: of the file; of published ones of their parameters in float32.
      top1: in percent, on ImageNet's validation images as published, or on the test images of their
        own data; None where it is not known.
      top1_of: whose number that is: "timm", at the tag's own size and crop, ``AUTHORS`` or
        ``HERE``.
      checked: what was done here: ``OUTPUTS`` or ``STRUCTURE`` of the network were compared, on
        other weights, or the ``ACCURACY`` of these was measured.
      tag: of published weights; None for those that come with the package.
    """

    name: str
    model: str
    place: str
    license: str
    num_classes: int
    preprocessing: Preprocessing
    parameters: int
    megabytes: float
    top1: float | None
    top1_of: str
    checked: str
    tag: WeightTag | None = None


def list_entries(patterns: Sequence[str] = ("*",)) -> list[Entry]:
    """Return the weights whose name matches one of some patterns, as in "convnext_*.fb_in1k".

    A pattern of a model's name alone means all of its weights.

    Raises:
      ValueError: a pattern matches none.
    """
    published = [tag for model in list_models() for tag in weights_of(model).values()]
    every = [*map(_boxed, box_names()), *map(_published, published)]
    found: dict[str, Entry] = {}
    for pattern in patterns:
        matching = {
            entry.name: entry
            for entry in every
            if fnmatch.fnmatchcase(entry.name, pattern) or fnmatch.fnmatchcase(entry.model, pattern)
        }
        if not matching:
            models = ", ".join(dict.fromkeys(tag.model.split("_")[0] for tag in published))
            raise ValueError(
                f"No published weights match {pattern!r}. Their names are MODEL.TAG, of {models}; "
                f"* stands for anything. {list_box()}"
            )
        found |= matching
    return list(found.values())


def _boxed(name: str) -> Entry:
    """Return a model that comes with the package, from what its folder says."""
    folder = Path(str(find_on_disk(f"{BOX_PREFIX}{name}")))
    facts = facts_from_json(read_object(folder / CONFIG_NAME), folder)
    weights = folder / WEIGHTS_NAME
    shapes = {path: array.shape for path, array in open_safetensors(weights).items()}
    top1 = facts.source.get("eval/top1")
    return Entry(
        name=name,
        model=facts.name or facts.description,
        place="comes with the package",
        license=facts.license,
        num_classes=facts.config.num_classes,
        preprocessing=facts.preprocessing,
        parameters=sum(math.prod(s) for p, s in shapes.items() if not p.endswith(_STATISTICS)),
        megabytes=weights.stat().st_size / 1e6,
        top1=None if top1 is None else 100 * top1,
        top1_of="" if top1 is None else HERE,
        checked=ACCURACY,
    )


def _published(tag: WeightTag) -> Entry:
    known = measured(tag.model, tag.tag)
    prepared = tag.preprocessing
    results = known.get("timm_top1", {}).get(f"{prepared.image_size}@{prepared.crop_pct:g}", {})
    top1, whose = results.get("imagenet"), "timm"
    if top1 is None:
        top1, whose = known.get("paper_top1"), AUTHORS
    on_hub = f"{tag.hub}/{tag.file}" if tag.file else tag.hub
    return Entry(
        name=tag.name,
        model=tag.model,
        place=on_hub if tag.hub else tag.place,
        license=tag.license,
        num_classes=tag.num_classes,
        preprocessing=prepared,
        parameters=known["parameters"],
        megabytes=known["parameters"] * BYTES_PER_PARAMETER / 1e6,
        top1=top1,
        top1_of=whose if top1 is not None else "",
        checked=OUTPUTS if tag.model in _OUTPUTS_COMPARED else STRUCTURE,
        tag=tag,
    )
