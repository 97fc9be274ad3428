"""ImageNet-C and ImageNet-C-bar: corruptions at five severities."""

from lska_jax.robustness.scores.corruption_scorer import CBarScorer, CorruptionScorer
from lska_jax.robustness.scores.reference_errors import (
    ALL_CORRUPTIONS,
    C_BAR_CORRUPTIONS,
    SEVERITIES,
)
from lska_jax.robustness.sets.layouts import folders_of_parts
from lska_jax.robustness.sets.record import ImageSet, OwnClasses, TfdsCopy

HENDRYCKS_2019 = (
    "Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
    "Perturbations, ICLR 2019, arXiv 1903.12261"
)
# How the five official archives of ImageNet-C share the corruptions out.
_ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
ARCHIVE_OF = {part: archive for archive, parts in _ARCHIVES.items() for part in parts}
# noise, blur, weather, digital and extra, as others quote the record's file list beside its MD5
# sums; the record itself could not be read, and its rounded sizes elsewhere agree.
_ARCHIVE_BYTES = (22_565_673_785, 7_112_704_951, 12_797_438_995, 7_757_510_705, 15_789_490_144)

IMAGENET_C = ImageSet(
    name="imagenet_c",
    title="ImageNet-C",
    label_space="1000 classes",
    parts=ALL_CORRUPTIONS,
    severities=SEVERITIES,
    citation=HENDRYCKS_2019,
    license="CC BY 4.0",  # as above
    where="https://zenodo.org/record/2235448",
    download_gb=sum(_ARCHIVE_BYTES) / 1e9,
    num_images=50_000,
    stored_size=224,
    layout="imagenet-c/CORRUPTION/SEVERITY/WNID/*.JPEG, or blur.tar, digital.tar, "
    "extra.tar, noise.tar and weather.tar as they are",
    places=folders_of_parts(
        "imagenet-c",
        groups=lambda part: (ARCHIVE_OF[part],),
        # ImageNet-P has archives of the same names: loose ones are taken to be ImageNet-C's.
        has_loose_archives=True,
    ),
    tfds=TfdsCopy(
        name="imagenet2012_corrupted/{part}_{severity}",
        split="validation",
        trap="TFDS corrupts anew, and its pixelate, motion_blur, impulse_noise and JPEG "
        "quality differ from the official images: never mix the two in one mCE; its "
        "motion_blur and snow cannot be prepared without a binary called imagemagick",
    ),
    scorer=CorruptionScorer(clean="imagenet", headlines=("mce_15", "mce_19", "mean_error")),
    can_be_generated=True,
    own=OwnClasses("clean_c", CorruptionScorer(clean="clean", is_against_alexnet=False)),
)

IMAGENET_C_BAR = ImageSet(
    name="imagenet_c_bar",
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
    places=folders_of_parts("imagenet-c-bar", "cbar_download"),
    scorer=CBarScorer(),
)
