"""Store what timm 0.4.12's RandAugment operations make of a small synthetic picture.

Development only: needs Pillow, NumPy and an installed timm 0.4.12, of which just the one file with
the operations is loaded (so neither torch nor torchvision has to work). Run from the repository:

    python tests/data/make_rand_augment_fixture.py

It writes fixtures/rand_augment_timm.npz: for each mode ("RGB", "L") the `image`, the `cases` as
"name magnitude sign resample" and the `outputs` in the same order.
"""

import importlib.metadata
import importlib.util
import pathlib
import types

import numpy as np
from PIL import Image

TIMM_VERSION = "0.4.12"
FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "rand_augment_timm.npz"

UNSIGNED = (
    *("AutoContrast", "Equalize", "Invert", "Posterize", "PosterizeIncreasing", "Solarize"),
    *("SolarizeIncreasing", "SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"),
)
SIGNED = ("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing")
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
RESAMPLINGS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Recent Pillow versions refuse 0 bits, so no magnitude here lets a posterising operation reach it.
MAGNITUDES = (3.0, 5.3, 9.0)


def synthetic_photo(height: int, width: int) -> np.ndarray:
    """Draw a picture with what photos have: shading, a horizon, texture, a bright round thing."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / height
    sky = np.stack([90 + 90 * y, 140 + 60 * y, 230 - 30 * y], axis=-1)
    ground = np.stack([120 - 50 * x, 95 - 20 * x, 40 + 30 * x], axis=-1)
    is_ground = y > 0.6 + 0.08 * np.sin(7 * x)
    picture = np.where(is_ground[..., None], ground, sky)
    picture += is_ground[..., None] * rng.normal(0, 14, (height, width, 1))
    is_sun = (x - 0.9) ** 2 + (y - 0.3) ** 2 < 0.025
    picture[is_sun] = (250, 215, 120)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def load_timm_operations() -> types.ModuleType:
    """Load timm's file of augmentations alone, without importing the package around it."""
    version = importlib.metadata.version("timm")
    if version != TIMM_VERSION:
        raise SystemExit(f"timm is {version}; the fixture is defined by timm {TIMM_VERSION}.")
    package = importlib.util.find_spec("timm")
    path = pathlib.Path(package.submodule_search_locations[0]) / "data" / "auto_augment.py"
    spec = importlib.util.spec_from_file_location("timm_auto_augment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_cases() -> list[tuple[str, float, int, str]]:
    """List (name, magnitude, sign, resampling) of all stored outputs."""
    cases = [(name, m, 1, "bilinear") for name in UNSIGNED for m in MAGNITUDES]
    cases += [(name, m, s, "bilinear") for name in SIGNED for m in MAGNITUDES for s in (1, -1)]
    cases += [
        (name, magnitude, sign, resampling)
        for name in GEOMETRIC
        for magnitude in MAGNITUDES[1:]
        for sign in (1, -1)
        for resampling in RESAMPLINGS
    ]
    return cases


def main() -> None:
    """Write the fixture."""
    timm = load_timm_operations()
    stored = {}
    for mode in ("RGB", "L"):
        image = Image.fromarray(synthetic_photo(24, 32)).convert(mode)
        outputs, names = [], []
        for name, magnitude, sign, resampling in list_cases():
            timm._randomly_negate = lambda value, sign=sign: sign * value
            fill = (128, 128, 128) if mode == "RGB" else 128
            settings = {"img_mean": fill, "interpolation": RESAMPLINGS[resampling]}
            operation = timm.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=settings)
            outputs.append(np.asarray(operation(image)))
            names.append(f"{name} {magnitude} {sign} {resampling}")
        stored[f"{mode}/image"] = np.asarray(image)
        stored[f"{mode}/cases"] = np.array(names)
        stored[f"{mode}/outputs"] = np.stack(outputs)
    np.savez_compressed(FIXTURE, **stored)
    print(f"{FIXTURE}: {FIXTURE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
