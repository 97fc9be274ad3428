"""``lska-jax compile-check``: mistakes, GPUs, and a TPU where libtpu is installed."""

import importlib.util
import json
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lska_jax.analysis.chips import CHIPS, known_topologies
from lska_jax.commands.compile_check import check, main

ROOT = Path(__file__).parents[2]
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
TINY = (
    "--config.model.dims=(8,)",
    "--config.model.depths=(1,)",
    "--config.model.ffn_ratios=(2,)",
    "--config.model.k=11",
)


def tiny_config() -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]("11")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
    return config


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("v5e", "--topology='v5e' is not understood; allowed: a TPU topology, as in v5e:4x4"),
        ("cuda:0", "--topology='cuda:0' is not understood"),
        ("cuda:6", "batch_size=64 is not divisible by 6 .6 devices.; nearest: 60 or 66"),
    ],
)
def test_a_topology_that_cannot_be_or_that_the_batch_does_not_fit_is_refused(topology, said):
    with pytest.raises(ValueError, match=said):
        check(tiny_config(), topology=topology)


def test_a_mistake_in_the_config_is_one_message(capsys):
    assert main(["--config", "digits", "--config.model.k=24"]) == 2
    assert "Nearest valid k: 23 or 29" in capsys.readouterr().err


def test_both_steps_export_for_gpus_that_are_not_here(capsys):
    result = check(tiny_config(), topology="cuda:8")
    assert result["fits"] is None
    assert result["train"]["devices"] == result["evaluation"]["devices"] == 8
    # The batch is split, the state of this small model is not.
    images = 64 * 8 * 8 // 8
    state = result["train"]["argument_bytes"] - images - 64 * (4 + 1) // 8
    assert state > 0
    assert state % 4 == 0
    assert "train step: exports for 8 cuda device(s)" in capsys.readouterr().out


def test_every_known_topology_names_a_generation_with_a_source_for_its_memory():
    assert len(known_topologies()) == len(set(known_topologies()))
    for chip in CHIPS.values():
        assert chip.hbm_bytes % 2**30 == 0
        assert chip.source.startswith("https://")


ONE_CHIP = ("v3:1x1", "v4:1x1x1", "v5e:1x1", "v5p:1x1x1", "v6e:1x1", "tpu7x:1x1x1")


def test_every_generation_has_a_topology_of_one_chip():
    assert set(ONE_CHIP) <= set(known_topologies())
    assert len(CHIPS) == len(ONE_CHIP)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
@pytest.mark.parametrize("topology", ONE_CHIP)
def test_a_step_compiles_for_one_chip(topology):
    result = check(tiny_config(), topology=topology, steps=["evaluation"])
    # libtpu gives some generations a device for each of a chip's two cores.
    assert result["devices"] == (2 if topology.startswith(("v3", "v4", "tpu7x")) else 1)
    assert result["fits"]


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_command_says_which_extra_to_install(capsys):
    assert main(["--config", "digits", "--topology", "v5e:2x2"]) == 2
    assert "pip install '.[tpu]'" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
def test_an_unknown_topology_lists_those_that_work():
    with pytest.raises(ValueError, match=r"'v9:2x2'.*These work: .*v5e:4x4"):
        check(tiny_config(), topology="v9:2x2")


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
def test_a_train_step_compiles_for_a_tpu_and_the_figures_are_those_of_its_arrays(tmp_path, capsys):
    written = tmp_path / "figures.json"
    options = ["--config", "digits", *TINY, "--topology", "v5e:2x2", "--only", "train"]
    assert main([*options, "--json", str(written)]) == 0
    result = json.loads(written.read_text())
    assert result["devices"] == 4
    assert result["fits"]
    train = result["train"]
    # BatchNorm and the gradients are sums over the chips.
    assert train["collectives"]["all-reduce"]["count"] > 1
    assert 0 < train["argument_bytes"] < train["total_bytes"] < result["device_memory_bytes"]
    said = capsys.readouterr()
    assert "compiling the train step, 16 images a device" in said.err
    assert "fits" in said.out
