"""What a model says of a photo and looks at in it, fast enough to move a slider by."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8
from PIL import Image

from lska_jax.analysis.attention_maps import (
    GATE_SOURCE,
    ROLLOUT_SOURCE,
    attention_rollout,
    gate_maps,
)
from lska_jax.analysis.explain_pictures import blend
from lska_jax.analysis.gradcam import SOURCE as GRADCAM_SOURCE
from lska_jax.analysis.gradcam import gradcam
from lska_jax.analysis.photos import LoadedModel
from lska_jax.robustness.corruptions import ALL_CORRUPTIONS, SEVERITIES, corrupt

TOP = 5
_NOTHING = "none"


class Looking:
    """One model behind the page; its programs are compiled once and kept.

    Args:
      loaded: the model.

    Attributes:
      maps: what can be drawn over a photo, in the order of the page: names for people by key.
    """

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded
        self._transform = loaded.transform()
        graph, state = nnx.split(loaded.network)
        self._state = state
        self._probabilities = jax.jit(
            lambda state, images: jax.nn.softmax(nnx.merge(graph, state)(images), axis=-1)
        )
        side, channels = loaded.preprocessing.image_size, len(loaded.preprocessing.mean)
        self._blank = np.full((side, side, channels), 127, np.uint8)
        self.maps = {"gradcam": "Grad-CAM"}
        network = loaded.network
        if hasattr(network.config, "attention"):
            for path in gate_maps(network, loaded.normalise(self._blank[None])):
                _, stage, _, block, *_ = path.split("/")
                self.maps[path] = f"gate of stage {int(stage) + 1}, block {int(block) + 1}"
        if hasattr(network, "tokens") or hasattr(network.config, "window"):
            self.maps["rollout"] = "attention rollout"
        self.maps[_NOTHING] = "nothing"

    def about(self) -> dict[str, Any]:
        """Return what the page says of the model and offers."""
        is_colour = len(self._loaded.preprocessing.mean) == 3
        return {
            "name": self._loaded.name,
            "description": repr(self._loaded.network),
            "side": self._loaded.preprocessing.image_size,
            "maps": self.maps,
            "corruptions": list(ALL_CORRUPTIONS) if is_colour else [],
            "severities": len(SEVERITIES),
        }

    def warm_up(self) -> None:
        """Compile what every photo needs, on a grey one."""
        self._look(self._blank, "gradcam")

    def look(
        self, image: bytes, *, over: str = "gradcam", corruption: str = "", severity: int = 0
    ) -> dict[str, Any]:
        """Return the best classes and pictures of an image file.

        Args:
          image: of any format that Pillow reads.
          over: key of ``maps``.
          corruption: one of the 19, or "" for none.
          severity: 1 to 5; 0 is none.

        Returns:
          top: [{name, probability}], best first; seen and map: addresses of PNGs ("data:..."), map
          "" for nothing; caption; seconds.

        Raises:
          ValueError: no image, or a map, corruption or severity that there is not.
        """
        if over not in self.maps:
            raise ValueError(f"There is no map {over!r}; allowed: {', '.join(self.maps)}.")
        started = time.monotonic()
        pixels = self._transform(image)
        if corruption and severity:
            if not self.about()["corruptions"]:
                raise ValueError("Corruptions are of colour photos; this model sees greys.")
            key = jax.random.key(0)
            pixels = np.asarray(corrupt(pixels[None], corruption, severity, key=key))[0]
        return {**self._look(pixels, over), "seconds": round(time.monotonic() - started, 2)}

    def _look(
        self, pixels: UInt8[np.ndarray, "height width channels"], over: str
    ) -> dict[str, Any]:
        inputs = self._loaded.normalise(pixels[None])
        scores = np.asarray(self._probabilities(self._state, jnp.asarray(inputs)))[0]
        best = np.argsort(-scores, kind="stable")[:TOP].tolist()
        names = self._loaded.class_names
        mixed, caption = self._map(pixels, inputs, over, best[0])
        return {
            "top": [{"name": names[n], "probability": float(scores[n])} for n in best],
            "seen": _address(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels),
            "map": "" if mixed is None else _address(mixed),
            "caption": caption,
        }

    def _map(
        self, pixels: np.ndarray, inputs: np.ndarray, over: str, label: int
    ) -> tuple[np.ndarray | None, str]:
        network, name = self._loaded.network, self._loaded.class_names[label]
        if over == _NOTHING:
            return None, ""
        if over == "gradcam":
            found = gradcam(network, inputs, [label])
            mixed, _ = blend(pixels, found.values[0])
            return (
                mixed,
                f"Where {found.of_map} speaks for {name!r}, the best class. {GRADCAM_SOURCE}.",
            )
        if over == "rollout":
            mixed, _ = blend(pixels, attention_rollout(network, inputs)[0], is_from_zero=False)
            return mixed, f"Where the head's input comes from, by attention. {ROLLOUT_SOURCE}."
        gate = np.asarray(gate_maps(network, inputs)[over])[0].mean(axis=-1)
        mixed, _ = blend(pixels, gate, is_signed=True)
        reach = float(np.max(np.abs(gate)))
        return mixed, (
            f"What the block multiplies its input with, the mean over channels: blue {-reach:.2g}, "
            f"white 0, red {reach:.2g}. {GATE_SOURCE}."
        )


def _address(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
