r"""Does k matter? The same small VAN-LSKA with several k and seeds: ``benchmarks.kernel_sizes``.

    python -m benchmarks.kernel_sizes --data digits
    python -m benchmarks.kernel_sizes --data cifar10 --source folder:cifar10.tar --epochs 6 \
        --limit 2000 --stimuli DIR --config.training.ema_decay=0.0

Accuracy, corruption error, shape bias and receptive field of the networks of ``configs/digits.py``
or ``configs/cifar10.py``, as the paper (arXiv 2309.01439) compares them on ImageNet. See
``benchmarks.trained`` for how it is resumed. Maps of small images end a kernel early: taps that
never meet a pixel are counted, and a k all of whose additional taps are such is a control, a
network that differs from the next smaller one by its initial weights alone.
"""

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import trained
from lska_jax.running.huge_pages import restart_with_huge_pages

NAME = "kernel_sizes"
# On maps of 8 and 16 pixels and below, the last is the control.
KERNEL_SIZES = {"digits": (7, 11, 17, 23, 35), "cifar10": (7, 11, 23, 35, 53)}
_QUICK = ("--config.model.dims=4,8", "--config.model.depths=1,1", "--config.model.ffn_ratios=1,1")


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure, write JSON and PNG, print the tables."""
    parser = trained.option_parser(NAME, __doc__)
    parser.add_argument("--kernel_sizes", type=int, nargs="+", metavar="K")
    options, changes = parser.parse_known_args(argv)
    sizes = options.kernel_sizes or KERNEL_SIZES[options.data]
    if options.quick:
        sizes, options.seeds, options.epochs, options.limit = sizes[:2], 1, 1, 8
        changes = [*_QUICK, *changes]
    members = [member(options.data, k) for k in sorted(sizes)]
    trained.conduct(NAME, members, options, changes)


def member(data: str, k: int) -> trained.Member:
    """Return the network of one k.

    Raises:
      ValueError: no cascade has this k.
    """
    return trained.Member(f"k={k}", f"{data}:{k}", {"k": k, "taps": taps(data, k)})


def taps(data: str, k: int) -> dict[str, Any]:
    """Return the kernel's two steps, and how many of its dilated taps meet pixels in each map."""
    from lska_jax import load_config
    from lska_jax.models.build import abstract_model, config_of
    from lska_jax.ops.kernel_spec import kernel_spec

    spec = kernel_spec(k)
    config = load_config(f"{data}:{k}")
    network = abstract_model(config_of(config.model))
    strides = [info.stride for info in network.feature_info]
    sides = [config.data.image_size // stride for stride in strides if stride]
    return {
        "local_size": spec.local_size,
        "dilated_size": spec.dilated_size,
        "dilation": spec.dilation,
        "maps": sides,
        "live": [live_taps(spec.dilated_size, spec.dilation, side) for side in sides],
    }


def live_taps(size: int, dilation: int, side: int) -> int:
    """Return how many of a dilated line's taps can meet a pixel of a map, whatever their place.

    A tap i steps from the centre is ``dilation * i`` pixels off it: from ``side`` on it meets
    padding alone.
    """
    return 1 + 2 * min(size // 2, (side - 1) // dilation)


if __name__ == "__main__":
    restart_with_huge_pages()
    main(sys.argv[1:])
