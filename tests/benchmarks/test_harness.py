"""Alternation, repetitions and medians, on times that are made up."""

import itertools
from collections import Counter

import pytest

from benchmarks.harness import alternate, measure_alternately, seconds_of


def contenders(times: dict[str, list[float]]) -> tuple[dict, list[str]]:
    """Return calls that give made-up seconds one after the other, and the order they ran in."""
    order: list[str] = []

    def bind(name: str):
        following = itertools.chain(times[name], itertools.repeat(times[name][-1]))

        def run() -> float:
            order.append(name)
            return next(following)

        return run

    return {name: bind(name) for name in times}, order


def measure(times: dict[str, list[float]], **options):
    calls, order = contenders(times)
    timings = measure_alternately(
        calls, time_once=lambda call: call(), pause=lambda seconds: None, **options
    )
    return timings, order


def test_the_median_leaves_warm_ups_out():
    timings, _ = measure({"a": [100.0, 50.0, 1.0, 2.0, 9.0, 3.0, 4.0]})
    assert timings["a"].seconds == 3.0
    assert timings["a"].quartiles == (2.0, 4.0)
    assert timings["a"].repetitions == 5


def test_fast_contenders_run_as_often_as_their_seconds_allow():
    timings, _ = measure({"a": [0.125], "b": [8.0]}, seconds_each=2.0)
    assert (timings["a"].repetitions, timings["b"].repetitions) == (16, 5)


def test_a_short_call_is_repeated_until_a_sample_is_long_enough_and_gives_the_mean():
    warm_up, samples = [0.004, 0.004], [0.001, 0.002, 0.003] * 5
    timings, order = measure({"a": [*warm_up, *samples]}, seconds_each=0.0, min_repetitions=5)
    assert timings["a"].calls == 3  # at least 10 ms
    assert timings["a"].seconds == pytest.approx(0.002)
    assert len(order) == 2 + 3 * 5


def test_repetitions_are_bounded():
    timings, _ = measure({"a": [0.0]}, max_repetitions=7)
    assert timings["a"].repetitions == 7


def test_a_slow_contender_runs_less_often_and_warms_up_once():
    timings, order = measure({"a": [1.0], "slow": [20.0]}, fewer={"slow": 2})
    assert timings["slow"].repetitions == 2
    assert Counter(order) == {"a": 2 + 5, "slow": 1 + 2}


def test_every_round_runs_each_contender_once_and_starts_with_another():
    order = list(alternate({"a": 3, "b": 3, "c": 3}))
    rounds = [order[i : i + 3] for i in (0, 3, 6)]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


def test_small_counts_are_spread_over_the_rounds():
    order = list(alternate({"often": 6, "seldom": 2}))
    assert Counter(order) == {"often": 6, "seldom": 2}
    first, second = (i for i, name in enumerate(order) if name == "seldom")
    assert (first, second) == (3, 6)


def test_the_contender_that_runs_is_shown():
    seen: list[str] = []
    _, order = measure({"a": [1.0], "b": [1.0]}, show=seen.append)
    assert seen == order


def test_measuring_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to measure"):
        measure_alternately({})


def test_real_seconds_are_positive():
    assert seconds_of(lambda: sum(range(1000))) > 0
