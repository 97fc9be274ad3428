"""The published weights of every family as a table: where, licence, size, images, accuracy."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from lska_jax.models.table import list_models
from lska_jax.models.weight_tags import WeightTag, measured, weights_of

BYTES_PER_PARAMETER = 4
OUTPUTS, STRUCTURE = "outputs", "structure"
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
    """One set of published weights.

    Attributes:
      tag: what ``pretrained=`` and the commands take.
      parameters: of the network, its classifier included.
      top1: on ImageNet's validation images as published, in percent; None where it is not known.
      top1_of: who published it: timm's results at the tag's own size and crop, or the authors.
      checked: what was compared here: ``OUTPUTS`` or ``STRUCTURE``, of the network, not of these
        weights.
    """

    tag: WeightTag
    parameters: int
    top1: float | None
    top1_of: str
    checked: str

    @property
    def megabytes(self) -> float:
        """Size of the weights in float32, in MB."""
        return self.parameters * BYTES_PER_PARAMETER / 1e6

    @property
    def place(self) -> str:
        """Where they are, in words."""
        tag = self.tag
        if not tag.hub:
            return tag.place
        return f"{tag.hub}/{tag.file}" if tag.file else tag.hub


def list_entries(patterns: Sequence[str] = ("*",)) -> list[Entry]:
    """Return the weights whose name matches one of some patterns, as in "convnext_*.fb_in1k".

    A pattern of a model's name alone means all of its weights.

    Raises:
      ValueError: a pattern matches none.
    """
    every = [tag for model in list_models() for tag in weights_of(model).values()]
    found: dict[str, WeightTag] = {}
    for pattern in patterns:
        matching = {
            tag.name: tag
            for tag in every
            if fnmatch.fnmatchcase(tag.name, pattern) or fnmatch.fnmatchcase(tag.model, pattern)
        }
        if not matching:
            models = ", ".join(dict.fromkeys(tag.model.split("_")[0] for tag in every))
            raise ValueError(
                f"No published weights match {pattern!r}. Their names are MODEL.TAG, of {models}; "
                "* stands for anything."
            )
        found |= matching
    return [_entry(tag) for tag in found.values()]


def _entry(tag: WeightTag) -> Entry:
    known = measured(tag.model, tag.tag)
    prepared = tag.preprocessing
    results = known.get("timm_top1", {}).get(f"{prepared.image_size}@{prepared.crop_pct:g}", {})
    top1, whose = results.get("imagenet"), "timm"
    if top1 is None:
        top1, whose = known.get("paper_top1"), "authors"
    return Entry(
        tag,
        known["parameters"],
        top1,
        whose if top1 is not None else "",
        OUTPUTS if tag.model in _OUTPUTS_COMPARED else STRUCTURE,
    )
