"""The published generator of ImageNet-C, from the package ``imagecorruptions``, if it is installed.

``pip install imagecorruptions`` brings the functions of Hendrycks and Dietterich's generator, made
independent of ImageMagick by Michaelis et al. (arXiv 1907.07484): motion blur and snow are written
in NumPy, frost resizes its pictures; glass blur is the same loop over pixels. The package was
written for old versions of NumPy, SciPy and scikit-image; what they have removed since is put back
before it is imported. Nothing of it runs in this library.
"""

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "imagecorruptions"
# imagecorruptions imports all of these.
_NEEDED = (PACKAGE, "cv2", "skimage", "scipy")


def is_installed() -> bool:
    """Tell whether the generator can be loaded; say how to install it where it cannot."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"{', '.join(missing)} not installed, so nothing is compared with the published "
            f"generator: pip install {PACKAGE} opencv-python-headless scikit-image."
        )
    return not missing


@functools.cache
def load() -> dict[str, Callable[..., Any]]:
    """Return name -> (PIL image, severity) -> array or PIL image in grey levels."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    _put_back(folder)
    module = importlib.import_module(f"{PACKAGE}.corruptions")
    module.gaussian = _with_old_argument(module.gaussian)  # type: ignore[attr-defined]
    from lska_jax.robustness.corruptions import ALL_CORRUPTIONS

    return {name: getattr(module, name) for name in ALL_CORRUPTIONS}


def _put_back(folder: Path) -> None:
    """Give the names back that NumPy 2, SciPy and setuptools have dropped."""
    import scipy.ndimage

    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]
    sys.modules.setdefault("scipy.ndimage.interpolation", scipy.ndimage)
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, name: str(folder / name)  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", resources)


def _with_old_argument(gaussian: Callable[..., Any]) -> Callable[..., Any]:
    """Translate scikit-image's former ``multichannel=True``."""

    def blur(image: Any, *arguments: Any, multichannel: bool = False, **options: Any) -> Any:
        channel_axis = -1 if multichannel else None
        return gaussian(image, *arguments, channel_axis=channel_axis, **options)

    return blur
