"""The corruptions and what AlexNet scores on them: the yardstick of the corruption error.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", arXiv 1903.12261, section 4.1, for the 15 corruptions of the benchmark and AlexNet's
errors; github.com/hendrycks/robustness for the four more that its files hold ("extra"). The errors
are those that the authors print, to a tenth of a percent; unrounded ones circulate in evaluation
code, e.g. github.com/google-research/augmix, and move a corruption error by less than a thousandth
of its value. The ten of ImageNet-C-bar: Mintun, Kirillov and Xie, arXiv 2102.11273
(github.com/facebookresearch/augmentation-corruption), in the order of its folders.
"""

from collections.abc import Mapping
from types import MappingProxyType

SEVERITIES = (1, 2, 3, 4, 5)

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
ALL_CORRUPTIONS = CORRUPTIONS + EXTRA_CORRUPTIONS

C_BAR_CORRUPTIONS = (
    "blue_noise_sample",
    "brownish_noise",
    "caustic_refraction",
    "checkerboard_cutout",
    "cocentric_sine_waves",
    "inverse_sparkles",
    "perlin_noise",
    "plasma_noise",
    "single_frequency_greyscale",
    "sparkles",
)

# Mean over the five severities of AlexNet's top-1 error.
ALEXNET_ERRORS: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886,
        "shot_noise": 0.894,
        "impulse_noise": 0.923,
        "defocus_blur": 0.820,
        "glass_blur": 0.826,
        "motion_blur": 0.786,
        "zoom_blur": 0.798,
        "snow": 0.867,
        "frost": 0.827,
        "fog": 0.819,
        "brightness": 0.565,
        "contrast": 0.853,
        "elastic_transform": 0.646,
        "pixelate": 0.718,
        "jpeg_compression": 0.607,
        "speckle_noise": 0.845,
        "gaussian_blur": 0.787,
        "spatter": 0.718,
        "saturate": 0.658,
    }
)
ALEXNET_CLEAN_ERROR = 0.4348
