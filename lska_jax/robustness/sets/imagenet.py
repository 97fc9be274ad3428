"""ImageNet's validation images: the clean control of the other sets."""

from lska_jax.robustness.scores.subset_scorers import CleanScorer
from lska_jax.robustness.sets.class_folders import NUM_VALIDATION_IMAGES, validation_images
from lska_jax.robustness.sets.layouts import validation_folders
from lska_jax.robustness.sets.record import ImageSet, OwnClasses, TfdsCopy

VALIDATION_LAYOUT = validation_folders(
    "imagenet", "imagenet2012", "imagenet1k", "ilsvrc2012", "ilsvrc"
)
ARCHIVE_BYTES = 6_744_924_160  # ILSVRC2012_img_val.tar

IMAGENET = ImageSet(
    name="imagenet",
    title="ImageNet",
    label_space="1000 classes",
    citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, "
    "IJCV 2015, arXiv 1409.0575",
    where="https://image-net.org/download-images (registration needed)",
    download_gb=ARCHIVE_BYTES / 1e9,
    num_images=NUM_VALIDATION_IMAGES,
    layout="imagenet/val/WNID/*.JPEG, or ILSVRC2012_img_val.tar as it is",
    note="the validation images; the clean control of the other sets",
    places=VALIDATION_LAYOUT,
    classes=validation_images(),
    tfds=TfdsCopy(name="imagenet2012", split="validation", trap="none known: the same files"),
    scorer=CleanScorer(),
    is_clean=True,
    own=OwnClasses("clean", CleanScorer()),
)
