"""Platforms and home folders that are not there are told from errors that are no mistakes."""

import pytest

from lska_jax.running.missing_platform import describe_missing_platform


def raised_in(filename: str, statement: str) -> BaseException:
    """Return what a statement of a file raises."""
    try:
        exec(compile(statement, filename, "exec"))
    except (AssertionError, RuntimeError) as error:
        return error
    raise ValueError(f"{statement} raises nothing")


@pytest.mark.parametrize(
    ("filename", "statement", "said"),
    [
        ("/jax/_src/xla_bridge.py", "assert False", "no plugin for it is installed"),
        ("/any.py", "raise RuntimeError('Unable to initialize backend x: no')", "backend x: no"),
        ("/any.py", "raise RuntimeError('Could not determine home directory.')", "Set HOME"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(filename, statement, said, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    problem = describe_missing_platform(raised_in(filename, statement))
    assert problem is not None and said in problem
    assert "JAX_PLATFORMS='cuda'" in problem or "HOME" in problem


@pytest.mark.parametrize("statement", ["assert False", "raise RuntimeError('something else')"])
def test_other_errors_are_left_alone(statement):
    assert describe_missing_platform(raised_in("/our/file.py", statement)) is None
