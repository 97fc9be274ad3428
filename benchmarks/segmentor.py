"""Time a segmentor's forward and backward pass beside PyTorch: ``python -m benchmarks.segmentor``.

Semantic FPN on VAN-LSKA tiny, 150 classes, two images of 512x512, in training mode without drop
path and dropout: loss and the gradients of all parameters. PyTorch runs the same network with the
same weights, eagerly, in both of its memory formats; contenders run alternately, and losses and
gradients are compared before anything is timed.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lska_jax.running import door

NAME = "segmentor"
OURS = "lska_jax"
# Least and wanted ratio over PyTorch.
GOAL = (1.2, 2.0)

_EXPECTED = "five minutes on two cores"
_BATCH, _SIDE = 2, 512
_MODEL, _CLASSES = "van_lska_tiny", 150


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import harness, results

    options = results.option_parser(NAME, __doc__).parse_args(argv)
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    contenders = calls(side=64 if options.quick else _SIDE, is_quick=options.quick)
    timings = harness.measure_alternately(contenders, seconds_each=30.0, max_repetitions=20)
    result = results.write_result(
        results.output_folder(options),
        NAME,
        conditions=conditions,
        rows=[
            {"contender": name, **dataclasses.asdict(timing)} for name, timing in timings.items()
        ],
        is_quick=options.quick,
    )
    print(f"\n{tables(result)[NAME]}")


def calls(*, side: int, is_quick: bool) -> dict[str, Callable[[], Any]]:
    """Return {contender: call}, ours first; a call returns loss and gradients.

    Args:
      side: of the square images.
      is_quick: whether the network is a small one.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from benchmarks import results
    from lska_jax import create_model
    from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
    from lska_jax.tasks.segmentation import weighted_cross_entropy

    small = {"dims": (4, 8), "depths": (1, 1), "ffn_ratios": (2, 2)} if is_quick else {}
    section = {"name": "semantic_fpn", "dropout_rate": 0.0}
    network = create_model(_MODEL, head=section, num_classes=_CLASSES, rngs=nnx.Rngs(0), **small)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, _CLASSES, (_BATCH, side, side)).astype(np.uint8)
    functions, stats = ModelFunctions(network), batch_stats(network)
    weights = jnp.full((_BATCH,), 1 / labels.size, jnp.float32)

    @jax.jit
    def step(params: Any, stats: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> Any:
            (logits,), updated = functions.train(
                params, stats, images, key=jax.random.key(0), method="all_logits"
            )
            return weighted_cross_entropy(logits, labels, weights), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    arrays = [jax.device_put(array) for array in (images, labels)]
    params = parameters(network)
    found: dict[str, Callable[[], Any]] = {OURS: lambda: step(params, stats, *arrays)}
    if results.has_torch():
        theirs = _torch_calls(network, images, labels)
        check_agreement(found[OURS](), next(iter(theirs.values()))())
        found |= theirs
    return found


def check_agreement(ours: Any, theirs: Any) -> None:
    """Raise AssertionError unless the losses and the norms of all gradients are alike."""
    (loss, _), gradients = ours
    np.testing.assert_allclose(float(loss), theirs[0].item(), rtol=1e-4)
    norms = [
        sum(float((np.asarray(array, np.float64) ** 2).sum()) for array in arrays)
        for arrays in (gradients.values(), theirs[1])
    ]
    np.testing.assert_allclose(*norms, rtol=1e-2)


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return a Markdown table: milliseconds, and our ratio over each contender."""
    from benchmarks.results import markdown_table

    seconds = {row["contender"]: row["seconds"] for row in result["rows"]}
    lines = [
        [
            name,
            f"{1e3 * taken:.0f}",
            f"{taken / seconds[OURS]:.2f}",
            *(("", "") if name == OURS else (f"{goal:g}" for goal in GOAL)),
        ]
        for name, taken in seconds.items()
    ]
    header = ["Forward + backward", "ms", "over lska_jax's", "at least", "aim"]
    return {NAME: markdown_table(header, lines)}


def _torch_calls(
    network: Any, images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], Any]]:
    import torch

    from benchmarks import torch_segmentor
    from lska_jax.ops.processor import usable_cores

    torch.set_num_threads(usable_cores())
    peer, targets = torch_segmentor.torch_segmentor(network), torch.from_numpy(labels).long()

    def call(memory_format: Any) -> Callable[[], Any]:
        placed = copy.deepcopy(peer).to(memory_format=memory_format).train()
        batch = torch.from_numpy(images).permute(0, 3, 1, 2)
        batch = batch.contiguous(memory_format=memory_format)
        return lambda: torch_segmentor.train_step(placed, batch, targets)

    return {
        "torch contiguous": call(torch.contiguous_format),
        "torch channels_last": call(torch.channels_last),
    }


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
