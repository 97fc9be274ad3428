"""Store what torchvision's centre crop and timm 0.4.12's random crop do.

Development only: needs torch, torchvision and timm 0.4.12. Run from the repository:

    python tests/data/make_transform_fixture.py

It writes fixtures/centre_crop_torchvision.npz (a synthetic `image`, the `cases` as "height width
image_size crop_pct interpolation" and one output each) and fixtures/random_crop_timm.json
(statistics of many random boxes for images of several shapes).
"""

import importlib.util
import json
import math
import pathlib
import random

import numpy as np
from make_rand_augment_fixture import synthetic_photo
from PIL import Image
from torchvision import transforms

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
DRAWS = 200_000
CROP_SHAPES = ((375, 500), (100, 1000), (900, 300), (32, 32))
CENTRE_CASES = (
    (45, 61, 24, 0.9, "bicubic"),
    (61, 45, 24, 0.9, "bilinear"),
    (45, 61, 25, 0.875, "bicubic"),
    (30, 61, 27, 1.0, "bicubic"),
    (61, 33, 20, 1.15, "bicubic"),
    (17, 23, 31, 0.9, "bicubic"),
    (24, 24, 24, 1.0, "bicubic"),
    (60, 41, 23, 1.3, "bilinear"),
)


def centre_crops() -> dict[str, np.ndarray]:
    """Resize and crop with torchvision, composed as timm's evaluation transform is."""
    image = synthetic_photo(64, 64)
    stored = {"image": image, "cases": np.array([" ".join(map(str, c)) for c in CENTRE_CASES])}
    for index, (height, width, size, crop_pct, interpolation) in enumerate(CENTRE_CASES):
        mode = transforms.InterpolationMode(interpolation)
        transform = transforms.Compose(
            [
                transforms.Resize(math.floor(size / crop_pct), mode),
                transforms.CenterCrop(size),
            ]
        )
        stored[f"output_{index}"] = np.asarray(transform(Image.fromarray(image[:height, :width])))
    return stored


def random_crops() -> list[dict[str, float]]:
    """Describe the boxes that timm draws, per image shape."""
    package = importlib.util.find_spec("timm")
    path = pathlib.Path(package.submodule_search_locations[0]) / "data" / "transforms.py"
    spec = importlib.util.spec_from_file_location("timm_transforms", path)
    timm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(timm)
    random.seed(0)
    rows = []
    for height, width in CROP_SHAPES:
        image = Image.new("L", (width, height))
        boxes = [
            timm.RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
            for _ in range(DRAWS)
        ]
        top, left, box_height, box_width = np.array(boxes, dtype=float).T
        quantities = {
            "area_fraction": box_height * box_width / (height * width),
            "log_ratio": np.log(box_width / box_height),
            "top_fraction": top / height,
            "left_fraction": left / width,
        }
        row = {"height": height, "width": width, "draws": DRAWS}
        for name, values in quantities.items():
            row[f"{name}_mean"] = round(float(values.mean()), 6)
            row[f"{name}_std"] = round(float(values.std()), 6)
        rows.append(row)
    return rows


def main() -> None:
    """Write both fixtures."""
    np.savez_compressed(FIXTURES / "centre_crop_torchvision.npz", **centre_crops())
    text = json.dumps(random_crops(), indent=1)
    (FIXTURES / "random_crop_timm.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
