"""Sets of other images of ImageNet's classes: ImageNet-A, -R, -Sketch and -V2."""

import functools

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.scores.scorer import ClassSubset, Scorer
from lska_jax.robustness.scores.subset_scorers import SubsetScorer
from lska_jax.robustness.sets.class_folders import ClassFolders, wnid_folders
from lska_jax.robustness.sets.label_sets import imagenet_wnids, subset_classes
from lska_jax.robustness.sets.layouts import Layout, named_folders
from lska_jax.robustness.sets.record import ImageSet, TfdsCopy

HENDRYCKS_2021 = (
    "Hendrycks, Zhao, Basart, Steinhardt and Song, Natural Adversarial Examples, CVPR 2021, "
    "arXiv 1907.07174"
)
_V2_FOLDERS = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold-0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}
_SAME_FILES = "none known: the same files"
_RELABELLED = f"{_SAME_FILES}, labelled in the 1000-class space"


def class_subset(name: str, *, keeps_confidence: bool = False) -> ClassSubset:
    """Return the classes of a set that has some of the 1000; see ``label_sets``."""
    return ClassSubset(name, subset_classes(name), keeps_confidence)


def _v2_places(cell: Cell) -> Layout:
    folder = _V2_FOLDERS[cell.part]
    roots = (folder, f"imagenet-v2/{folder}", f"imagenet-v2/{cell.part}")
    tars = (*roots, folder.removesuffix("-format-val"))
    return Layout(
        roots,
        tuple((f"{tar}.tar", "") for tar in tars),
        f"{', '.join(roots)} and tars of these names",
        wraps=True,
    )


IMAGENET_A = ImageSet(
    name="imagenet_a",
    title="ImageNet-A",
    label_space="200 of the 1000 classes",
    citation=HENDRYCKS_2021,
    where="https://github.com/hendrycks/natural-adv-examples",
    download_gb=687_552_512 / 1e9,
    num_images=7_500,  # the paper
    layout="imagenet-a/WNID/*.jpg",
    places=named_folders("imagenet-a"),
    classes=wnid_folders("imagenet_a"),
    tfds=TfdsCopy(name="imagenet_a", trap=_RELABELLED),
    scorer=SubsetScorer(),
    subset=functools.partial(class_subset, "imagenet_a"),
)

IMAGENET_R = ImageSet(
    name="imagenet_r",
    title="ImageNet-R",
    label_space="200 of the 1000 classes",
    citation="Hendrycks et al., The Many Faces of Robustness: A Critical Analysis of "
    "Out-of-Distribution Generalization, ICCV 2021, arXiv 2006.16241",
    where="https://github.com/hendrycks/imagenet-r",
    download_gb=2_191_079_936 / 1e9,
    num_images=30_000,  # README of that page
    layout="imagenet-r/WNID/*.jpg",
    places=named_folders("imagenet-r"),
    classes=wnid_folders("imagenet_r"),
    tfds=TfdsCopy(name="imagenet_r", trap=_RELABELLED),
    scorer=SubsetScorer(),
    subset=functools.partial(class_subset, "imagenet_r"),
)

IMAGENET_SKETCH = ImageSet(
    name="imagenet_sketch",
    title="ImageNet-Sketch",
    label_space="1000 classes",
    citation="Wang, Ge, Lipton and Xing, Learning Robust Global Representations by "
    "Penalizing Local Predictive Power, NeurIPS 2019, arXiv 1905.13549",
    where="https://github.com/HaohanWang/ImageNet-Sketch",
    download_gb=7_593_573_012 / 1e9,
    # TFDS's description, which counted the archive; the authors write 50,000.
    num_images=50_889,
    layout="sketch/WNID/*.JPEG",
    places=named_folders("imagenet-sketch", "sketch"),
    tfds=TfdsCopy(name="imagenet_sketch", trap=_SAME_FILES),
)

IMAGENET_V2 = ImageSet(
    name="imagenet_v2",
    title="ImageNet-V2",
    label_space="1000 classes",
    parts=tuple(_V2_FOLDERS),
    citation="Recht, Roelofs, Schmidt and Shankar, Do ImageNet Classifiers Generalize to "
    "ImageNet?, ICML 2019, arXiv 1902.10811",
    where="https://github.com/modestyachts/ImageNetV2",
    download_gb=(1_264_079_360 + 1_249_906_176 + 1_245_927_936) / 1e9,
    num_images=10_000,  # README of that page
    layout="imagenetv2-VARIANT-format-val/0..999/*.jpeg: folders are class numbers",
    places=_v2_places,
    classes=ClassFolders(
        is_one=lambda name: name.isdecimal() and len(name) <= 3,
        labels=lambda: {str(label): label for label in range(len(imagenet_wnids()))},
    ),
    tfds=TfdsCopy(
        name="imagenet_v2/{part}",
        part_names={"top-images": "topimages"},
        trap=f"{_SAME_FILES}; TFDS calls top-images topimages",
    ),
    scorer=Scorer(is_by_part=True),
)
