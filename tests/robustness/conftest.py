"""What every test of robustness begins with."""

import pytest


@pytest.fixture(autouse=True)
def no_tfds_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))
