"""Keys of a summary taken apart, and the names that people read.

Groups and order of the corruptions: Hendrycks and Dietterich, arXiv 1903.12261, table 1.
"""

from collections.abc import Iterable
from typing import NamedTuple

from lska_jax.robustness.sets.catalogue import SETS

CORRUPTION_GROUPS = {
    "Noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "Blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "Weather": ("snow", "frost", "fog", "brightness"),
    "Digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "Extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
OTHER_GROUP = "Other"

# Results of models with classes of their own, and sets that results files of other data have.
_OTHER_TITLES = {
    "clean": "Clean images",
    "clean_c": "Corrupted images",
    "own_c": "Own corruptions",
    "label_maps": "Clean images, pixels",
    "label_maps_c": "Corrupted images, pixels",
    "objects": "Clean images, objects",
    "objects_c": "Corrupted images, objects",
    "labels": "Clean images, any number of labels",
    "labels_c": "Corrupted images, any number of labels",
    "cifar10": "CIFAR-10",
    "cifar10_c": "CIFAR-10-C",
    "cifar100": "CIFAR-100",
    "cifar100_c": "CIFAR-100-C",
}

_SEVERITIES = ("1", "2", "3", "4", "5")
_SHORT_NAMES = {
    "gaussian_noise": "Gauss.",
    "shot_noise": "Shot",
    "impulse_noise": "Impulse",
    "defocus_blur": "Defocus",
    "glass_blur": "Glass",
    "motion_blur": "Motion",
    "zoom_blur": "Zoom",
    "brightness": "Bright",
    "elastic_transform": "Elastic",
    "pixelate": "Pixel",
    "jpeg_compression": "JPEG",
    "speckle_noise": "Speckle",
    "gaussian_blur": "G. blur",
}


class Key(NamedTuple):
    """A key of ``Summary.scores``: SET/SCORE, SET/SCORE/PART or SET/SCORE/PART/SEVERITY."""

    set: str
    score: str
    part: str = ""
    severity: int = 0

    def __str__(self) -> str:
        """Return the key as it stands in a summary."""
        words = (self.set, self.score, self.part, str(self.severity) if self.severity else "")
        return "/".join(word for word in words if word)


def parse_key(key: str) -> Key:
    """Take a key of a summary apart.

    Raises:
      ValueError: it is not SET/SCORE[/PART[/SEVERITY]] with a severity of 1 to 5.
    """
    words = key.split("/")
    if not 2 <= len(words) <= 4 or not all(words) or (words[3:] and words[3] not in _SEVERITIES):
        raise ValueError(
            f"{key!r} is no key of a score: it has to be SET/SCORE, SET/SCORE/PART or "
            "SET/SCORE/PART/SEVERITY with a severity of 1 to 5."
        )
    part = words[2] if len(words) > 2 else ""
    return Key(words[0], words[1], part, int(words[3]) if len(words) > 3 else 0)


def set_title(name: str) -> str:
    """Return how a set is called in print."""
    if name in SETS:
        return SETS[name].title
    return _OTHER_TITLES.get(name, name.replace("_", "-"))


def in_set_order(names: Iterable[str]) -> list[str]:
    """Return names of sets, each once, in the order of the report.

    That is the catalogue's order; sets of shapes, whose scores are no accuracies, come behind, and
    sets that nobody knows last.
    """
    shapes = [name for name, image_set in SETS.items() if image_set.has_shapes]
    known = [*(name for name in SETS if name not in shapes), *_OTHER_TITLES, *shapes]
    return sorted(
        set(names), key=lambda name: (known.index(name) if name in known else len(known), name)
    )


def part_title(name: str) -> str:
    """Return how a corruption, variant or class is called in print."""
    return name.replace("_", " ")


def short_part_title(name: str) -> str:
    """Return a name for the head of a narrow column."""
    return _SHORT_NAMES.get(name, part_title(name).capitalize())


def grouped_parts(parts: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return corruptions by their groups, both in the order of ImageNet-C's tables.

    What belongs to none of them comes last, as one group; it has no title if it is the only one.
    """
    left = dict.fromkeys(parts)
    groups = []
    for title, members in CORRUPTION_GROUPS.items():
        present = [name for name in members if name in left]
        if present:
            groups.append((title, present))
        for name in present:
            del left[name]
    if not left:
        return groups
    return [*groups, (OTHER_GROUP if groups else "", list(left))]


def clean_set(name: str, keys: Iterable[Key]) -> str | None:
    """Return the set of the images without corruption or shift that a set goes back to.

    That is the one with a top-1 accuracy and the shortest name that is the set's own or that its
    own continues: "imagenet" for "imagenet_c_bar", "cifar10" for "cifar10_c" and for corruptions
    within "cifar10". None where there is no such set.

    Args:
      name: of the set.
      keys: all keys there are.
    """
    measured = {key.set for key in keys if key.score == "top1" and not key.part}
    clean = [other for other in measured if name == other or name.startswith(f"{other}_")]
    return min(clean, key=len, default=None)


def printable(text: str) -> str:
    """Return a text of others without line breaks and terminal control sequences."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
