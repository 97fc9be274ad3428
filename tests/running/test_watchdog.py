"""The watchdog: what it says of a run that has come to a stop."""

import threading

from lska_jax.running.watchdog import Watchdog

TIMEOUT_SECONDS = 60


class Said:
    """Lines that were reported, and a way to wait for the next."""

    def __init__(self):
        self.lines = []
        self._changed = threading.Condition()

    def __call__(self, line):
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.lines) >= count, TIMEOUT_SECONDS)


def test_an_activity_that_takes_too_long_is_reported_with_what_is_known_of_it(capfd):
    said = Said()
    with Watchdog(0.05, report=said) as watchdog:
        watchdog.note("waiting for a batch of training", detail=lambda: "Reading a.jpg.")
        said.wait_for(1)
    assert "STALLED: 0 s of waiting for a batch of training. Reading a.jpg." in said.lines[0]
    stacks = capfd.readouterr().err
    assert "Current thread" in stacks
    assert "test_watchdog.py" in stacks


def test_a_stall_that_ends_is_reported_too(capfd):
    said = Said()
    with Watchdog(0.05, report=said) as watchdog:
        watchdog.note("waiting for a batch")
        said.wait_for(1)
        watchdog.note("a step")
        assert said.lines[-1].startswith("Going on after 0 s of waiting for a batch")


def test_a_long_stall_is_reported_again(capfd):
    said = Said()
    with Watchdog(0.05, report=said) as watchdog:
        watchdog.note("waiting for a batch")
        said.wait_for(3)


def test_nothing_is_watched_where_the_limit_is_zero():
    said = Said()
    with Watchdog(0, report=said) as watchdog:
        watchdog.note("waiting for a batch")
        watchdog.note("a step")
    assert said.lines == []
