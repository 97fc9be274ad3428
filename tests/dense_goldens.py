"""Detectors with golden weights, and what their files hold: see tests/golden/README.md."""

import json
import math
from collections.abc import Mapping
from typing import Any

import golden_baselines
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.build import config_of
from lska_jax.models.dense.detector import Truth
from lska_jax.models.table import section_of
from lska_jax.nn.functional import assign, flat_values, parameters

CANVAS = (64, 96)


def detector(head: str, stored: dict[str, np.ndarray], **fields: Any) -> Any:
    """Return a head on VAN-LSKA tiny with golden weights, in evaluation mode.

    Args:
      head: name of the head.
      stored: the file's arrays, whose ``overrides`` say which weights differ from the rule.
      **fields: of the head.
    """
    config = config_of(section_of("van_lska_tiny", head={"name": head, **fields}))
    network = golden_baselines.network_of(config)
    changes = json.loads(str(stored["overrides"]))
    of_names = {name: path for path, (name, *_) in golden_baselines._torch_arrays(config).items()}
    arrays = flat_values(nnx.state(network, nnx.Param))
    changed = {}
    for name, (factor, shift) in changes.items():
        changed[of_names[name]] = jnp.float32(factor) * arrays[of_names[name]] + jnp.float32(shift)
    assign(network, changed)
    return network


def images(stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the images of the batch; the second one is cut to its size, with zeros outside."""
    batch = golden_weights.images(2, *CANVAS)
    height, width = stored["second_img_shape"]
    batch[1, height:] = 0
    batch[1, :, width:] = 0
    return batch


def sizes(stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the sizes of both images within the batch."""
    return np.array([CANVAS, stored["second_img_shape"]], np.int32)


def truth(stored: dict[str, np.ndarray], case: str, *, rows: int = 4) -> Truth:
    """Return the ground truth of a training case, padded to some rows."""
    boxes = np.zeros((2, rows, 4), np.float32)
    labels = np.zeros((2, rows), np.int32)
    is_box = np.zeros((2, rows), bool)
    masks = np.zeros((2, rows, CANVAS[0], CANVAS[1] // 8), np.uint8)
    for image in range(2):
        count = len(stored[f"{case}/gt_boxes{image}"])
        boxes[image, :count] = stored[f"{case}/gt_boxes{image}"]
        labels[image, :count] = stored[f"{case}/gt_labels{image}"]
        is_box[image, :count] = True
        packed = stored.get(f"{case}/gt_mask_bits{image}")
        if packed is not None and count:
            masks[image, :count, : packed.shape[1], : packed.shape[2]] = packed
    arrays = boxes, labels, is_box, sizes(stored), np.ones(2, bool), masks
    return Truth(*map(jnp.asarray, arrays))


def losses_and_gradients(network: Any) -> Any:
    """Return a compiled (images, truth) -> losses by name and gradients by path."""
    training = nnx.view(network, deterministic=False, use_running_average=False)
    graph, params, rest = nnx.split(training, nnx.Param, ...)

    @jax.jit
    def run(images: jax.Array, truth: Truth) -> Any:
        def total(params: Any) -> Any:
            parts = nnx.merge(graph, params, rest, copy=True).losses(images, truth)
            return sum(parts.values()), parts

        (_, parts), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return parts, flat_values(gradients)

    return run


def gradient_errors(
    network: Any, gradients: dict[str, jax.Array], stored: dict[str, np.ndarray], case: str
) -> dict[str, float]:
    """Return {name: error of norm and probe over the norm}, as ``golden_baselines`` does."""
    values = dict(zip(stored["grad_names"].tolist(), stored[f"{case}/grad_values"], strict=True))
    return errors_of(gradient_values(network, gradients), values)


def gradient_values(
    network: Any, gradients: dict[str, jax.Array]
) -> dict[str, tuple[float, float]]:
    """Return {name: norm and probe}, what is stored of a gradient."""
    named = golden_baselines.named(network, {p: np.asarray(g) for p, g in gradients.items()})
    assert len(named) == len(parameters(network))
    values = {}
    for name, gradient in named.items():
        wide = gradient.astype(np.float64)
        direction = golden_weights.normal(f"probe/{name}", gradient.shape)
        values[name] = float(np.linalg.norm(wide)), float((wide * direction).sum())
    return values


def errors_of(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Return {name: error of norm and probe over the expected norm}."""
    assert found.keys() == expected.keys()
    largest = max(norm for norm, _ in expected.values())
    errors = {}
    for name, (norm, probe) in expected.items():
        # Those that are zero in exact arithmetic hold rounding errors alone.
        scale = norm if norm > 1e-6 * largest else largest * 1e-2
        errors[name] = max(abs(found[name][0] - norm), abs(found[name][1] - probe)) / scale
    assert all(math.isfinite(error) for error in errors.values())
    return errors
