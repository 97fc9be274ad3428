"""The most frequent faults, once each; ``python -m tests.faults`` injects all, more often."""

from pathlib import Path

import pytest

from tests.faults.lab import Lab
from tests.faults.stops import signal_to_one_of_two, sigterm_while_training


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    return Lab(Path(tmp_path_factory.mktemp("faults")), epochs=3)


@pytest.mark.slow
def test_sigterm_while_training_saves_the_step_and_loses_nothing(lab):
    for injection in sigterm_while_training(lab, 1):
        assert injection.lost == []


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(lab):
    for injection in signal_to_one_of_two(lab, 1):
        assert injection.lost == []
