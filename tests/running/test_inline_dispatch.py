"""Programs on CPU run in the thread that calls them, in processes that are ours."""

import sys

import jax
import pytest

from lska_jax.running.inline_dispatch import OPTION, use_inline_dispatch


@pytest.mark.parametrize(
    ("command_line", "is_asynchronous"),
    [
        ("python -m lska_jax train", False),
        ("python train.py --config a.py", False),
        ("python -m ipykernel_launcher", True),
    ],
)
def test_the_option_is_set_in_our_processes_alone(monkeypatch, command_line, is_asynchronous):
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(sys, "orig_argv", command_line.split())
    before = jax.config.values[OPTION]
    assert before is True
    try:
        use_inline_dispatch()
        assert jax.config.values[OPTION] is is_asynchronous
    finally:
        jax.config.update(OPTION, before)
