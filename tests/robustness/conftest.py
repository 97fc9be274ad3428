"""What tests of robustness begin with."""

import functools

import pytest

from lska_jax.robustness.scores import bootstrap


@pytest.fixture(autouse=True)
def no_tfds_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))


@pytest.fixture
def few_draws(monkeypatch):
    """Draw each interval from few resamples, where no test looks at how wide it is."""
    few = functools.partial(bootstrap.bootstrap_scores, resamples=10)
    monkeypatch.setattr(bootstrap, "bootstrap_scores", few)
