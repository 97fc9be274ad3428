"""The range test of the learning rate, and averages of several models."""

import csv
import math

import numpy as np
import pytest
import toy_family
from flax import nnx

from lska_jax.commands import average
from lska_jax.training.averaging import average_models
from lska_jax.training.rate_finder import choose_rate, growing_rate
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_model_folder, write_model_folder
from lska_jax.weights.pretrained import arrays_of


def test_rates_grow_by_one_factor_from_the_lowest_to_the_highest():
    schedule = growing_rate(low=1e-5, high=1e-1, steps=5)
    np.testing.assert_allclose(
        [schedule(step) for step in range(5)], [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], rtol=1e-5
    )


def test_a_tenth_of_the_rate_with_the_lowest_loss_is_suggested():
    rates = [10 ** (-6 + n / 40) for n in range(240)]
    losses = [3 - 2 / (1 + 1e-3 / rate) + rate**2 * 30 for rate in rates]
    found = choose_rate(rates, losses)
    assert found.suggested == found.lowest / 10
    assert 1e-2 < found.lowest < 2e-1
    assert len(found.rates) == len(found.smoothed) == len(found.losses)


def test_the_test_ends_where_the_loss_is_no_number():
    assert choose_rate([1e-3, 1e-2, 1e-1], [2.0, 1.0, math.nan]).rates == (1e-3, 1e-2)
    with pytest.raises(ValueError, match="The loss of the first step is nan"):
        choose_rate([1e-3], [math.nan])


def toy_folder(root, name: str, seed: int, **config):
    model = toy_family.Toy(toy_family.ToyConfig(num_classes=2, **config), rngs=nnx.Rngs(seed))
    facts = ModelFacts(
        config=model.config,
        preprocessing=toy_family.FAMILY.preprocessing,
        class_names=("a", "b"),
        source={"eval/top1": 0.9, "data": "photos"},
    )
    return write_model_folder(root / name, facts, arrays_of(model))


def test_an_average_is_the_mean_of_every_array(tmp_path):
    places = [toy_folder(tmp_path, str(seed), seed) for seed in range(3)]
    assert average.main([*map(str, places), "--out", str(tmp_path / "mean")]) == 0
    facts, means = read_model_folder(tmp_path / "mean")
    each = [read_model_folder(place)[1] for place in places]
    for path, array in means.items():
        expected = np.mean([np.float64(arrays[path]) for arrays in each], axis=0)
        np.testing.assert_array_equal(array, expected.astype(np.float32))
    assert facts.source == {"data": "photos", "average_of": ["0", "1", "2"]}


def test_models_that_differ_are_not_averaged(tmp_path):
    places = [toy_folder(tmp_path, "a", 0), toy_folder(tmp_path, "b", 0, width=16)]
    with pytest.raises(ValueError, match="cannot be averaged: .*width 8.*width 16"):
        average_models(places, tmp_path / "mean")
    with pytest.raises(ValueError, match="needs two models or more, got 1"):
        average_models(places[:1], tmp_path / "mean")


@pytest.mark.slow
def test_the_command_tries_rates_and_draws_them(tmp_path, capsys):
    from lska_jax.commands import find_rate

    options = [f"--config.model.{x}" for x in ("dims=(8,)", "depths=(1,)", "ffn_ratios=(2,)")]
    status = find_rate.main(
        ["--config", "digits:11", *options, "--workdir", str(tmp_path), "--steps", "30"]
    )
    assert status == 0
    assert find_rate.main(["--config", "digits:11", "--low", "1", "--high", "0.1"]) == 2
    assert "Suggested: " in capsys.readouterr().out
    with (tmp_path / "rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-7, rel=1e-4)
    assert (tmp_path / "rates.png").stat().st_size > 5_000
