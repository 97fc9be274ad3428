"""VANs whose stages have kernels of their own: attention, k and dilation stage by stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import SMALL

from lska_jax import create_model
from lska_jax.analysis.complexity import network_cost
from lska_jax.commands import transfer as command
from lska_jax.commands.config_option import read_config
from lska_jax.models.build import array_shapes
from lska_jax.models.table import fields_of, section_for
from lska_jax.models.van_config import VANConfig, gates_of
from lska_jax.training.config_check import check_config
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder, write_model_folder
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.state_dict import make_state_dict
from lska_jax.weights.transfer import transfer_kernels

SIZES = {**SMALL, "k": (7, 23), "attention": ("lka", "lska")}


def kernels(config: VANConfig, stage: int) -> list[tuple[int, ...]]:
    gate = f"stages/{stage}/blocks/0/attention/gate/depthwise"
    shapes = array_shapes(config)
    return [shapes[f"{gate}/{n}/kernel"][:2] for n in range(4) if f"{gate}/{n}/kernel" in shapes]


def test_each_stage_has_its_own_kernels():
    config = VANConfig(**SIZES)
    assert kernels(config, 0) == [(3, 3), (3, 3)]
    assert kernels(config, 1) == [(1, 5), (5, 1), (1, 7), (7, 1)]


def test_equal_stages_are_one_value_and_one_config():
    same = VANConfig(k=(23, 23, 23, 23), attention=("lska",) * 4, dilation=(None, 3, None, 3))
    assert same == VANConfig()
    assert VANConfig(k=(7, 11, 23, 35)).dilation is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": (7, 23, 35)}, r"k=\(7, 23, 35\) needs one value, or one for each of the 4 stages"),
        ({"k": (7, 24, 23, 23)}, "k=24 .*Nearest valid k"),
        ({"attention": ("lka", "lsk", "lka", "lka")}, "attention='lsk' is unknown"),
        (
            {"attention": ("lka_trivial", "lka", "lka", "lka"), "dilation": (2, None, None, None)},
            "lka_trivial has no dilation",
        ),
    ],
)
def test_a_stage_that_makes_no_network_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        VANConfig(**fields)


@pytest.mark.slow
def test_a_name_takes_them_and_says_so():
    config = create_model("van_lska_tiny", **{**SIZES, "num_classes": 3}).config
    assert config.attention == ("lka", "lska")
    assert "a VAN with lka, lska, k=(7, 23)" in repr(create_model("van_lska_tiny", **SIZES))
    assert fields_of(section_for(config))[1] == vars(config)


def test_a_config_takes_them_from_the_command_line():
    words = ["--config.model.k=7,11,23,35", "--config.model.attention=lka,lska,lska,lska"]
    config, rest = read_config("van_lska_tiny", words, "train")
    check_config(config)
    assert rest == []
    assert config.model.k == (7, 11, 23, 35)
    assert fields_of(config.model.to_dict())[1]["attention"] == ("lka", "lska", "lska", "lska")
    with pytest.raises(ValueError, match="needs one value, or one for each of the 4 stages"):
        check_config(read_config("van_lska_tiny", ["--config.model.k=7,11"], "train")[0])


@pytest.mark.slow
def test_folders_and_kernels_travel_stage_by_stage(tmp_path):
    """A larger k of the same dilation changes no output, in the stages that have one."""
    model = create_model("van_lska_tiny", **SIZES)
    model.eval()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    write_model_folder(tmp_path / "model", facts, arrays_of(model))
    assert read_model_folder(tmp_path / "model")[0].config == model.config
    options = [str(tmp_path / "model"), "--out", str(tmp_path / "larger"), "--k", "7,35"]
    assert command.main(options) == 0
    larger = create_model(pretrained=tmp_path / "larger")
    larger.eval()
    assert gates_of(vars(larger.config)) == (("lka", 7, None), ("lska", 35, None))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    forward = nnx.jit(lambda model, x: model(x))
    np.testing.assert_array_equal(forward(larger, images), forward(model, images))
    with pytest.raises(ValueError, match="Kernels of lska cannot become those of lka"):
        transfer_kernels(model, attention="lka")


def test_the_names_of_pytorch_have_one_attention():
    with pytest.raises(ValueError, match="has one attention in all stages"):
        make_state_dict(create_model("van_lska_tiny", **SIZES))
    make_state_dict(create_model("van_lska_tiny", **{**SIZES, "attention": ("lska", "lska")}))


@pytest.mark.slow
def test_operations_are_counted_stage_by_stage():
    """Each stage adds what it adds in a network of its own kernels throughout."""

    def flops(**fields):
        return network_cost(VANConfig(**{**SMALL, **fields}), height=64, width=64).macs

    small, large = flops(k=7), flops(k=35)
    mixed = flops(k=(7, 35)) - small, flops(k=(35, 7)) - small
    assert sum(mixed) == large - small
    assert all(part > 0 for part in mixed)


@pytest.mark.slow
def test_mixed_networks_train():
    model = create_model("van_lska_tiny", **SIZES)
    gradients = nnx.grad(lambda model, x: model(x, rngs=nnx.Rngs(0)).sum())(
        model, jnp.ones((2, 32, 32, 3))
    )
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
