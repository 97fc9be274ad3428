"""The image sets of the benchmark: what each is, where to get it, and suites of them.

Every fact has its source beside it. Sizes in bytes are those that TFDS 4.9.10 registers with the
checksum of the download (``datasets/*/checksums.tsv``, ``url_checksums/*.txt``); what could not be
established is None.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.scores.perturbation import PERTURBATIONS
from lska_jax.robustness.scores.reference_errors import (
    ALL_CORRUPTIONS,
    C_BAR_CORRUPTIONS,
    SEVERITIES,
)

V2_VARIANTS = ("matched-frequency", "threshold-0.7", "top-images")

_GB = 1e9

# noise, blur, weather, digital and extra, as others quote the record's file list beside its MD5
# sums; the record itself could not be read, and its rounded sizes elsewhere agree.
_C_BYTES = (22_565_673_785, 7_112_704_951, 12_797_438_995, 7_757_510_705, 15_789_490_144)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetFacts:
    """One set of the benchmark.

    Attributes:
      title: as the literature writes it.
      label_space: what labels mean, for a person.
      parts: corruptions, perturbations or variants; ("",) where a set has none.
      severities: (0,) where a set has none.
      citation: authors, title, place.
      license: of the images; None where it is not known.
      where: the page its authors publish it on.
      download_gb: size of all downloads together in 10^9 bytes; None where it is not known.
      num_images: in each cell; for ImageNet-P the sequences.
      stored_size: side of the square images in pixels if they are cropped already, else None.
      layout: official folders, in one line.
      tfds: name of the TFDS set, with ``{part}`` and ``{severity}``; None where there is none.
      tfds_split: its split.
      trap: what sets the TFDS copy apart from the official one, or "".
      note: what else to know, or "".
    """

    title: str
    label_space: str
    parts: tuple[str, ...] = ("",)
    severities: tuple[int, ...] = (0,)
    citation: str
    license: str | None = None
    where: str
    download_gb: float | None = None
    num_images: int
    stored_size: int | None = None
    layout: str
    tfds: str | None = None
    tfds_split: str = "test"
    trap: str = ""
    note: str = ""

    @property
    def size(self) -> str:
        """The size of the download, for a person."""
        return "size not known" if self.download_gb is None else f"{self.download_gb:.2g} GB"


_HENDRYCKS_2019 = (
    "Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
    "Perturbations, ICLR 2019, arXiv 1903.12261"
)
_HENDRYCKS_2021 = (
    "Hendrycks, Zhao, Basart, Steinhardt and Song, Natural Adversarial Examples, CVPR 2021, "
    "arXiv 1907.07174"
)

SETS: Mapping[str, SetFacts] = MappingProxyType(
    {
        "imagenet": SetFacts(
            title="ImageNet",
            label_space="1000 classes",
            citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, "
            "IJCV 2015, arXiv 1409.0575",
            where="https://image-net.org/download-images (registration needed)",
            download_gb=6_744_924_160 / _GB,  # ILSVRC2012_img_val.tar
            num_images=50_000,
            layout="imagenet/val/WNID/*.JPEG, or ILSVRC2012_img_val.tar as it is",
            tfds="imagenet2012",
            tfds_split="validation",
            trap="none known: the same files",
            note="the validation images; the clean control of the other sets",
        ),
        "imagenet_c": SetFacts(
            title="ImageNet-C",
            label_space="1000 classes",
            parts=ALL_CORRUPTIONS,
            severities=SEVERITIES,
            citation=_HENDRYCKS_2019,
            license="CC BY 4.0",  # as above
            where="https://zenodo.org/record/2235448",
            download_gb=sum(_C_BYTES) / _GB,
            num_images=50_000,
            stored_size=224,
            layout="imagenet-c/CORRUPTION/SEVERITY/WNID/*.JPEG, or blur.tar, digital.tar, "
            "extra.tar, noise.tar and weather.tar as they are",
            tfds="imagenet2012_corrupted/{part}_{severity}",
            tfds_split="validation",
            trap="TFDS corrupts anew, and its pixelate, motion_blur, impulse_noise and JPEG "
            "quality differ from the official images: never mix the two in one mCE; its "
            "motion_blur and snow cannot be prepared without a binary called imagemagick",
        ),
        "imagenet_c_bar": SetFacts(
            title="ImageNet-C-bar",
            label_space="1000 classes",
            parts=C_BAR_CORRUPTIONS,
            severities=SEVERITIES,
            citation="Mintun, Kirillov and Xie, On Interaction Between Augmentations and "
            "Corruptions in Natural Corruption Robustness, NeurIPS 2021, arXiv 2102.11273",
            where="https://github.com/facebookresearch/augmentation-corruption",
            num_images=50_000,
            stored_size=224,
            layout="imagenet-c-bar/CORRUPTION/SEVERITY/WNID/*.JPEG",  # README of that page
            note="the prepared download that the page offers; the authors' script, which makes "
            "them from the clean images, names folders by strength instead of severity",
        ),
        "imagenet_a": SetFacts(
            title="ImageNet-A",
            label_space="200 of the 1000 classes",
            citation=_HENDRYCKS_2021,
            where="https://github.com/hendrycks/natural-adv-examples",
            download_gb=687_552_512 / _GB,
            num_images=7_500,  # the paper
            layout="imagenet-a/WNID/*.jpg",
            tfds="imagenet_a",
            trap="none known: the same files, labelled in the 1000-class space",
        ),
        "imagenet_r": SetFacts(
            title="ImageNet-R",
            label_space="200 of the 1000 classes",
            citation="Hendrycks et al., The Many Faces of Robustness: A Critical Analysis of "
            "Out-of-Distribution Generalization, ICCV 2021, arXiv 2006.16241",
            where="https://github.com/hendrycks/imagenet-r",
            download_gb=2_191_079_936 / _GB,
            num_images=30_000,  # README of that page
            layout="imagenet-r/WNID/*.jpg",
            tfds="imagenet_r",
            trap="none known: the same files, labelled in the 1000-class space",
        ),
        "imagenet_sketch": SetFacts(
            title="ImageNet-Sketch",
            label_space="1000 classes",
            citation="Wang, Ge, Lipton and Xing, Learning Robust Global Representations by "
            "Penalizing Local Predictive Power, NeurIPS 2019, arXiv 1905.13549",
            where="https://github.com/HaohanWang/ImageNet-Sketch",
            download_gb=7_593_573_012 / _GB,
            # TFDS's description, which counted the archive; the authors write 50,000.
            num_images=50_889,
            layout="sketch/WNID/*.JPEG",
            tfds="imagenet_sketch",
            trap="none known: the same files",
        ),
        "imagenet_v2": SetFacts(
            title="ImageNet-V2",
            label_space="1000 classes",
            parts=V2_VARIANTS,
            citation="Recht, Roelofs, Schmidt and Shankar, Do ImageNet Classifiers Generalize to "
            "ImageNet?, ICML 2019, arXiv 1902.10811",
            where="https://github.com/modestyachts/ImageNetV2",
            download_gb=(1_264_079_360 + 1_249_906_176 + 1_245_927_936) / _GB,
            num_images=10_000,  # README of that page
            layout="imagenetv2-VARIANT-format-val/0..999/*.jpeg: folders are class numbers",
            tfds="imagenet_v2/{part}",
            trap="none known: the same files; TFDS calls top-images topimages",
        ),
        "imagenet_real": SetFacts(
            title="ImageNet-ReaL",
            label_space="sets of the 1000 classes",
            citation="Beyer, Henaff, Kolesnikov, Zhai and van den Oord, Are we done with "
            "ImageNet?, 2020, arXiv 2006.07159",
            where="https://github.com/google-research/reassessed-imagenet",
            download_gb=(388_478 + 6_744_924_160) / _GB,
            num_images=50_000,
            layout="real.json beside the validation images of ImageNet, under their own names",
            tfds="imagenet2012_real",
            tfds_split="validation",
            trap="none known: the same images and label sets",
            note="images without a label are not counted; the size includes ImageNet's images",
        ),
        "imagenet_o": SetFacts(
            title="ImageNet-O",
            label_space="none of the 1000 classes",
            citation=_HENDRYCKS_2021,
            license="MIT",  # huggingface.co/datasets/cais/imagenet-o, its authors' institute
            where="https://github.com/hendrycks/natural-adv-examples",
            download_gb=177_617_920 / _GB,  # the same page
            num_images=2_000,  # the paper
            layout="imagenet-o/WNID/*.JPEG",
            note="folders name the class that an image is mistaken for, not what it shows",
        ),
        "imagenet_p": SetFacts(
            title="ImageNet-P",
            label_space="1000 classes",
            parts=PERTURBATIONS,
            citation=_HENDRYCKS_2019,
            where="https://zenodo.org/record/3565846",
            num_images=50_000,
            stored_size=224,
            layout="imagenet-p/PERTURBATION/WNID/*.mp4, or blur.tar, digital.tar, noise.tar and "
            "weather.tar as they are in a folder imagenet-p",
            note="videos; reading them needs the extra 'video'",
        ),
        "cue_conflict": SetFacts(
            title="Cue conflict",
            label_space="16 shape classes",
            citation="Geirhos et al., ImageNet-trained CNNs are biased towards texture; increasing "
            "shape bias improves accuracy and robustness, ICLR 2019, arXiv 1811.12231",
            license="CC BY 4.0",  # DATASET_LICENSE of that page
            where="https://github.com/rgeirhos/texture-vs-shape",
            download_gb=161_433_700 / _GB,  # the repository as one archive
            num_images=1_280,  # README of that page
            stored_size=224,
            layout="style-transfer-preprocessed-512/SHAPE/SHAPEn-TEXTUREm.png",
            tfds="geirhos_conflict_stimuli",
            trap="none known: the same files",
            note="80 of the 1,280 have one class for both and count for no shape bias",
        ),
    }
)

# Items are sets, "SET/PART" or "SET/PART/SEVERITY".
SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "paper": (
            *("imagenet", "imagenet_c", "imagenet_c_bar"),
            *("imagenet_a", "imagenet_r", "imagenet_sketch"),
        ),
        "full": tuple(SETS),
        # Needs the clean images alone if the corruption is generated; contrast draws nothing at
        # random, so two tries give one number.
        "smoke": ("imagenet", *(f"imagenet_c/contrast/{severity}" for severity in (1, 3, 5))),
    }
)


def set_cells(
    name: str,
    *,
    parts: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
) -> tuple[Cell, ...]:
    """Return the cells of a set, parts in official order and severities ascending within.

    Args:
      name: of the set. Any name may be given with both parts and severities, so that generated
        corruptions of other data have cells too: ``set_cells("cifar10", parts=..., ...)``.
      parts: only these; None is all of them.
      severities: only these; None is all of them.

    Raises:
      ValueError: the set, a part or a severity is unknown.
    """
    if name not in SETS and parts is not None and severities is not None:
        return tuple(Cell(name, part, level) for part in parts for level in severities)
    facts = set_facts(name)
    for part in parts or ():
        if part not in facts.parts:
            raise ValueError(_unknown(f"part of {name}", part, facts.parts))
    for level in severities or ():
        if level not in facts.severities:
            raise ValueError(_unknown(f"severity of {name}", str(level), facts.severities))
    return tuple(
        Cell(name, part, level)
        for part in (facts.parts if parts is None else parts)
        for level in (facts.severities if severities is None else severities)
    )


def set_facts(name: str) -> SetFacts:
    """Return what is known of a set.

    Raises:
      ValueError: there is no set of that name; the closest ones are named.
    """
    if name not in SETS:
        raise ValueError(_unknown("image set", name, tuple(SETS)))
    return SETS[name]


def parse_suite(text: str) -> tuple[Cell, ...]:
    """Return the cells that a suite names, each once, in the order given.

    Args:
      text: comma-separated suites ("paper", "full", "smoke"), sets ("imagenet_a"), parts
        ("imagenet_c/fog") and cells ("imagenet_c/fog/3").

    Raises:
      ValueError: a name is unknown, or there is none.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError(
            f"The suite {text!r} names nothing; give {', '.join(SUITES)}, or names of sets "
            f"separated by commas: {', '.join(SETS)}."
        )
    cells: dict[Cell, None] = {}
    for item in items:
        for name in SUITES.get(item, (item,)):
            cells |= dict.fromkeys(_item_cells(name))
    return tuple(cells)


def _item_cells(item: str) -> tuple[Cell, ...]:
    name, *rest = item.split("/")
    if name not in SETS:
        known = (*SUITES, *SETS)
        raise ValueError(_unknown("suite or image set", name, known))
    if len(rest) > 2 or (len(rest) == 2 and not rest[1].isdecimal()):
        raise ValueError(f"Cannot read {item!r}; write SET, SET/PART or SET/PART/SEVERITY.")
    return set_cells(
        name,
        parts=rest[:1] or None,
        severities=[int(level) for level in rest[1:]] or None,
    )


def _unknown(kind: str, name: str, known: Sequence[object]) -> str:
    names = [str(one) for one in known if one]
    if not names:
        return f"There is no {kind} {name!r}: it has none."
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}."
