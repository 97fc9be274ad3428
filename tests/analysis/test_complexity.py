"""Parameters and FLOPs against the published and the reference's."""

import math

import jax
import pytest
from flax import nnx

from lska_jax import create_model, list_models, model_entry
from lska_jax.analysis.complexity import Cost, attention_cost, van_cost
from lska_jax.models.van import ATTENTIONS, VANConfig
from lska_jax.nn.functional import parameters

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


def config_of(attention: str, size: str, k: int) -> VANConfig:
    entry = model_entry(f"van_{attention}_{size}")
    return VANConfig(attention=attention, k=k, **entry.size._asdict())


@pytest.mark.parametrize(("size", "k"), LSKA)
def test_lska_networks_cost_what_is_published(size, k):
    cost = van_cost(config_of("lska", size, k))
    assert (cost.parameters, round(cost.flops / 1e9, 3)) == LSKA[size, k]


@pytest.mark.parametrize("size", LKA)
def test_lka_networks_cost_what_is_published(size):
    cost = van_cost(config_of("lka", size, 23))
    parameters_published, gflops = LKA[size]
    assert cost.parameters == parameters_published
    assert gflops is None or round(cost.flops / 1e9, 3) == gflops


@pytest.mark.parametrize("name", list_models("*_tiny"))
def test_the_counted_parameters_are_those_of_the_model(name):
    model = nnx.eval_shape(lambda: create_model(name, k=11, num_classes=0))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert van_cost(model.config).parameters == sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_an_attention_counts_one_flop_a_parameter_and_pixel(attention):
    module = ATTENTIONS[attention](8, 11, rngs=nnx.Rngs(0))
    own = sum(array.size for array in parameters(module).values())
    assert attention_cost(attention, 8, height=5, width=3, k=11) == Cost(own, 15 * own)


def test_the_cost_of_an_impossible_kernel_is_refused():
    with pytest.raises(ValueError, match="k=25 .* is not a valid kernel size"):
        attention_cost("lska", 8, height=5, width=3, k=25)
