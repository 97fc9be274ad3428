"""Parameters and FLOPs against the published and the reference's."""

import math

import pytest

from lska_jax import VANConfig
from lska_jax.analysis.complexity import Cost, module_cost, network_cost
from lska_jax.models.build import array_shapes
from lska_jax.models.van import ATTENTIONS, abstract_attention
from lska_jax.models.van_config import SIZES

# (size, k) -> trainable parameters of the reference code at 1000 classes, and GFLOPs at 224.
LSKA = {
    ("tiny", 7): (4_009_800, 0.842),
    ("tiny", 11): (4_016_200, 0.844),
    ("tiny", 23): (4_029_000, 0.849),
    ("tiny", 35): (4_041_800, 0.854),
    ("tiny", 41): (4_048_200, 0.857),
    ("tiny", 53): (4_061_000, 0.862),
    ("small", 7): (13_700_520, 2.463),
    ("small", 11): (13_711_272, 2.467),
    ("small", 23): (13_732_776, 2.474),
    ("small", 35): (13_754_280, 2.481),
    ("small", 41): (13_765_032, 2.485),
    ("small", 53): (13_786_536, 2.492),
    ("base", 7): (26_221_352, 4.928),
    ("base", 11): (26_245_160, 4.935),
    ("base", 23): (26_292_776, 4.949),
    ("base", 35): (26_340_392, 4.963),
    ("base", 41): (26_364_200, 4.970),
    ("base", 53): (26_411_816, 4.984),
}
# size -> the same of LKA at k = 23; GFLOPs are published for B0 to B3.
LKA = {
    "tiny": (4_105_800, 0.880),
    "small": (13_861_800, 2.518),
    "base": (26_578_472, 5.032),
    "large": (44_765_608, 8.987),
    "b4": (60_283_176, None),
    "b5": (89_967_688, None),
    "b6": (199_829_416, None),
}


def rows(table, *fast):
    """Return a table's keys; those that are not ``fast`` take long to trace and say the same."""
    return [key if key in fast else pytest.param(key, marks=pytest.mark.slow) for key in table]


@pytest.mark.parametrize("key", rows(LSKA, ("tiny", 7)))
def test_lska_networks_cost_what_is_published(key):
    size, k = key
    cost = network_cost(VANConfig(k=k, **SIZES[size]._asdict()))
    assert (cost.parameters, round(cost.flops / 1e9, 3)) == LSKA[key]


# test_reference_names.py has the shapes of tiny; what an attention counts is below.
@pytest.mark.parametrize("size", rows(LKA))
def test_lka_networks_cost_what_is_published(size):
    cost = network_cost(VANConfig(attention="lka", **SIZES[size]._asdict()))
    parameters_published, gflops = LKA[size]
    assert cost.parameters == parameters_published
    assert gflops is None or round(cost.flops / 1e9, 3) == gflops


def test_the_counted_parameters_are_those_of_the_model():
    config = VANConfig(attention="lka_trivial", k=11, num_classes=0, depths=(1, 1, 2, 1))
    shapes = array_shapes(config)
    trainable = [shape for path, shape in shapes.items() if not path.endswith(("/mean", "/var"))]
    assert network_cost(config).parameters == sum(map(math.prod, trainable))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_an_attention_counts_one_flop_a_parameter_and_pixel(attention):
    # Each parameter multiplies, or is added to, one value of every pixel; biases are no products.
    taps = {"lska": 3 + 3 + 5 + 5, "lka": 9 + 25, "lska_trivial": 11 + 11, "lka_trivial": 121}
    steps = {"lska": 4, "lka": 2, "lska_trivial": 2, "lka_trivial": 1}[attention] + 1
    macs = 8 * taps[attention] + 8 * 8
    own = macs + 8 * steps
    cost = module_cost(abstract_attention(attention, 8, k=11), (5, 3, 8))
    assert cost == Cost(own, 15 * macs, 15 * own)


def test_the_cost_of_an_impossible_kernel_is_refused():
    with pytest.raises(ValueError, match="k=25 .* is not a valid kernel size"):
        abstract_attention("lska", 8, k=25)
