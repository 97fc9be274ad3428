"""``lska-jax import``: fields that no shape shows."""

import pytest
from families import SWIN
from golden_baselines import arrays_of_config

from lska_jax.commands.convert import main
from lska_jax.models.build import abstract_model
from lska_jax.weights import ModelFacts, export_checkpoint, read_facts, write_model_folder


@pytest.fixture
def exported(tmp_path):
    """Return a file of a Swin for images of 32 pixels, which its shapes do not show."""
    config = SWIN.config()
    facts = ModelFacts(config=config, preprocessing=abstract_model(config).preprocessing)
    folder = write_model_folder(tmp_path / "folder", facts, arrays_of_config(config))
    export_checkpoint(folder, tmp_path / "swin.safetensors")
    return tmp_path / "swin.safetensors"


def test_a_field_is_taken_as_it_is_given(exported, tmp_path):
    out = tmp_path / "again"
    assert main([str(exported), "--out", str(out), "--field", "image_size=32"]) == 0
    assert read_facts(out).config == SWIN.config()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("image_size", "must be NAME=VALUE, such as image_size=384"),
        ("k=7", "--k is an option of its own"),
        ("imagesize=32", "imagesize"),
        ("image_size=wide", "image_size='wide'"),
    ],
)
def test_a_field_that_means_nothing_is_refused(exported, tmp_path, capsys, field, message):
    try:
        status = main([str(exported), "--out", str(tmp_path / "again"), "--field", field])
    except SystemExit as leaving:
        status = leaving.code
    assert status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
