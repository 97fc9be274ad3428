"""Time what detectors are made of beside torchvision: ``python -m benchmarks.dense_ops``.

Suppression of 5,000 boxes to 100 in each of 8 images, by class, and RoIAlign of 512 boxes to 7x7 on
the four levels of an 800x1344 image, forward, and forward + backward. torchvision has to be
installed with its compiled operators; without it our side is timed alone. Contenders run
alternately on the same arrays; ratios are of medians.
"""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lska_jax.running import door

NAME = "dense_ops"
OURS, THEIRS = "lska_jax", "torchvision"
# Least and wanted ratios over torchvision.
GOALS = {"NMS": (0.5, 1.0), "RoIAlign": (0.7, 1.5)}

_EXPECTED = "a minute on two cores"
_STRIDES = (4, 8, 16, 32)
_THRESHOLD = 0.5
_FINEST = 56.0


class Sizes(NamedTuple):
    """How much there is to do.

    Attributes:
      images: of the suppression.
      boxes: of each.
      kept: of each, at most.
      classes: of boxes.
      height: of the image that RoIAlign reads.
      width: likewise.
      rois: boxes of it.
      channels: of the maps.
      side: bins of a box.
    """

    images: int = 8
    boxes: int = 5000
    kept: int = 100
    classes: int = 80
    height: int = 800
    width: int = 1344
    rois: int = 512
    channels: int = 256
    side: int = 7


QUICK = Sizes(images=2, boxes=60, kept=10, height=64, width=96, rois=5, channels=4)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import harness, results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    sizes = QUICK if options.quick else Sizes()
    if has_torchvision():
        conditions["versions"][THEIRS] = importlib.metadata.version(THEIRS)
    else:
        print(f"{THEIRS} has no compiled operators here: ratios are left out.")
    rows = []
    for case, contenders in cases(sizes).items():
        check_agreement(case, contenders)
        timings = harness.measure_alternately(contenders, seconds_each=4.0)
        rows += [
            {"case": case, "contender": name, **dataclasses.asdict(timing)}
            for name, timing in timings.items()
        ]
    result = results.write_result(
        results.output_folder(options),
        NAME,
        conditions=conditions | {"sizes": sizes._asdict()},
        rows=rows,
        is_quick=options.quick,
    )
    print(f"\n{tables(result)[NAME]}")


def has_torchvision() -> bool:
    """Tell whether torchvision's compiled operators can be called."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros((1, 4)), torch.zeros((1,)), 0.5)
    except (ImportError, RuntimeError, NotImplementedError):
        return False
    return True


def cases(sizes: Sizes) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return {case: {contender: call}}; a call returns arrays."""
    rng = np.random.default_rng(0)
    scenes = [_random_boxes(rng, sizes.boxes, sizes) for _ in range(sizes.images)]
    scores = rng.uniform(size=(sizes.images, sizes.boxes)).astype(np.float32)
    labels = rng.integers(0, sizes.classes, (sizes.images, sizes.boxes)).astype(np.int32)
    maps = [
        rng.normal(size=(1, -(-sizes.height // s), -(-sizes.width // s), sizes.channels)).astype(
            np.float32
        )
        for s in _STRIDES
    ]
    rois = _random_boxes(rng, sizes.rois, sizes)
    found = {
        "NMS": {OURS: _our_nms(np.stack(scenes), scores, labels, sizes)},
        "RoIAlign, forward": {OURS: _our_roi_align(maps, rois, sizes, use_gradient=False)},
        "RoIAlign, forward + backward": {
            OURS: _our_roi_align(maps, rois, sizes, use_gradient=True)
        },
    }
    if has_torchvision():
        found["NMS"][THEIRS] = _their_nms(np.stack(scenes), scores, labels, sizes)
        for case, use_gradient in (("forward", False), ("forward + backward", True)):
            found[f"RoIAlign, {case}"][THEIRS] = _their_roi_align(
                maps, rois, sizes, use_gradient=use_gradient
            )
    return found


def check_agreement(case: str, contenders: Mapping[str, Callable[[], Any]]) -> None:
    """Raise AssertionError unless all contenders of a case compute the same."""
    outputs = [np.asarray(call()) for call in contenders.values()]
    for other in outputs[1:]:
        np.testing.assert_allclose(outputs[0], other, rtol=1e-3, atol=1e-3, err_msg=case)


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return a Markdown table: milliseconds, and the ratio over torchvision."""
    from benchmarks.results import markdown_table

    seconds = {(row["case"], row["contender"]): row["seconds"] for row in result["rows"]}
    lines = []
    for case in dict.fromkeys(name for name, _ in seconds):
        ours, theirs = seconds[case, OURS], seconds.get((case, THEIRS))
        least, wanted = GOALS[case.split(",")[0]]
        line = [case, f"{1e3 * ours:.1f}", f"{1e3 * theirs:.1f}" if theirs else ""]
        line += [f"{theirs / ours:.1f}" if theirs else "", f"{least:g}", f"{wanted:g}"]
        lines.append(line)
    header = ["Operation", f"{OURS}, ms", f"{THEIRS}, ms", "ratio", "at least", "aim"]
    return {NAME: markdown_table(header, lines)}


def _random_boxes(rng: np.random.Generator, count: int, sizes: Sizes) -> np.ndarray:
    """Return boxes of all sizes, cut off at the image's border."""
    limits = np.array([sizes.width, sizes.height])
    centres = rng.uniform(size=(count, 2)) * limits
    halves = np.exp(rng.uniform(np.log(4), np.log(limits.min() / 4), (count, 2)))
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    return np.clip(corners, 0, np.tile(limits, 2)).astype(np.float32)


def _our_nms(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, sizes: Sizes
) -> Callable[[], Any]:
    import jax

    from lska_jax.ops.nms import suppress_each

    arrays = [jax.device_put(array) for array in (boxes, scores, labels)]

    @jax.jit
    def run(boxes: Any, scores: Any, labels: Any) -> Any:
        return suppress_each(
            boxes, scores, labels=labels, threshold=_THRESHOLD, max_outputs=sizes.kept
        ).indices

    return lambda: run(*arrays)


def _their_nms(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, sizes: Sizes
) -> Callable[[], Any]:
    import torch
    from torchvision.ops import batched_nms

    arrays = [torch.from_numpy(array) for array in (boxes, scores, labels)]

    def run() -> Any:
        # It has one image at a time, and no limit.
        found = [
            batched_nms(*of_image, _THRESHOLD)[: sizes.kept]
            for of_image in zip(*arrays, strict=True)
        ]
        return torch.stack(found)

    return run


def _our_roi_align(
    maps: list[np.ndarray], rois: np.ndarray, sizes: Sizes, *, use_gradient: bool
) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    from lska_jax.ops.roi_align import pyramid_levels, roi_align

    arrays, boxes = [jax.device_put(level) for level in maps], jax.device_put(rois[None])

    def align(maps: Any, boxes: Any) -> Any:
        levels = pyramid_levels(boxes)
        return roi_align(maps, boxes, levels=levels, strides=_STRIDES, side=sizes.side)

    if not use_gradient:
        forward = jax.jit(lambda maps, boxes: align(maps, boxes)[0])
        return lambda: forward(arrays, boxes)
    backward = jax.jit(jax.grad(lambda maps, boxes: 0.5 * jnp.sum(jnp.square(align(maps, boxes)))))
    return lambda: backward(arrays, boxes)[0]


def _their_roi_align(
    maps: list[np.ndarray], rois: np.ndarray, sizes: Sizes, *, use_gradient: bool
) -> Callable[[], Any]:
    import torch
    from torchvision.ops import roi_align

    # Its operators take channels first; results are laid out as ours after the timed part only.
    arrays = [
        torch.from_numpy(np.ascontiguousarray(level.transpose(0, 3, 1, 2))).requires_grad_(
            use_gradient
        )
        for level in maps
    ]
    boxes = torch.from_numpy(rois)

    def align() -> Any:
        sides = boxes[:, 2:] - boxes[:, :2]
        levels = torch.log2(sides.prod(1).sqrt() / _FINEST + 1e-6).floor().clamp(0, 3)
        out = arrays[0].new_zeros((len(boxes), sizes.channels, sizes.side, sizes.side))
        for number, (features, stride) in enumerate(zip(arrays, _STRIDES, strict=True)):
            chosen = torch.where(levels == number)[0]
            found = roi_align(features, [boxes[chosen]], sizes.side, 1 / stride, 0, True)
            out = out.index_put((chosen,), found)
        return out

    if not use_gradient:
        return lambda: align().permute(0, 2, 3, 1)

    def backward() -> Any:
        loss = 0.5 * align().square().sum()
        return torch.autograd.grad(loss, arrays)[0].permute(0, 2, 3, 1)

    return backward


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
