r"""The paper's comparison in small: networks of a million parameters under one recipe.

    python -m benchmarks.small_networks --data digits
    python -m benchmarks.small_networks --data cifar10 --source folder:cifar10.tar --limit 2000 \
        --stimuli DIR --seeds 1

VAN with LSKA and LKA beside ConvNeXt, DeiT, Swin, PVTv2 and InceptionNeXt, those of
``configs/small.py``: 10 epochs, accuracy, corruption error and shape bias. See
``benchmarks.trained`` for how it is resumed.
"""

import sys
from collections.abc import Sequence

from benchmarks import trained
from lska_jax.running.huge_pages import restart_with_huge_pages

NAME = "small_networks"
NETWORKS = {
    "van_lska": "VAN-LSKA",
    "van_lka": "VAN-LKA",
    "convnext": "ConvNeXt",
    "deit": "DeiT",
    "swin": "Swin",
    "pvt_v2": "PVTv2",
    "inception_next": "InceptionNeXt",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure, write JSON and PNG, print the tables."""
    parser = trained.option_parser(NAME, __doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options, changes = parser.parse_known_args(argv)
    if options.quick:
        options.networks, options.seeds = options.networks[:1], 1
        options.epochs, options.limit = 1, 8
    argument = "" if options.data == "cifar10" else f",{options.data}"
    members = [
        # Some of them take images of one size only.
        trained.Member(NETWORKS[name], f"small:{name}{argument}", {"field_scales": (1,)})
        for name in options.networks
    ]
    trained.conduct(NAME, members, options, changes)


if __name__ == "__main__":
    restart_with_huge_pages()
    main(sys.argv[1:])
