"""Configs by name and path, and the keys that they may have."""

from pathlib import Path

import pytest

import lska_jax
from lska_jax.commands.config_option import find_config, read_config, shipped_configs
from lska_jax.training.config_check import check_config

ROOT = Path(__file__).parents[2]
OWN = """
from lska_jax.training.config import base_config

def get_config():
    config = base_config()
    {change}
    return config
"""


def write_config(path: Path, change: str = "pass") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(OWN.format(change=change))
    return str(path)


def test_every_config_of_the_repository_is_found_by_name_and_works():
    assert set(shipped_configs()) == {path.stem for path in (ROOT / "configs").glob("*.py")}
    for name in shipped_configs():
        check_config(lska_jax.load_config(name))


@pytest.mark.parametrize(
    "location", ["digits", "configs/digits.py", "digits:35", "digits:35,trivial"]
)
def test_names_and_the_paths_of_the_docs_work_in_any_folder(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = find_config(location)
    assert place.path == ROOT / "configs" / "digits.py"
    assert place.argument == location.partition(":")[2]


def test_ones_own_file_is_read_and_may_take_no_argument(tmp_path):
    place = write_config(tmp_path / "my" / "own.py", "config.optimizer.epochs = 7")
    assert lska_jax.load_config(place).optimizer.epochs == 7


def test_runs_of_one_config_with_other_arguments_have_other_names():
    locations = ("digits", "digits:35", "digits:35,trivial", "van_lska_base:35")
    names = [find_config(location).workdir.name for location in locations]
    assert names == ["digits", "digits-35", "digits-35-trivial", "van_lska_base-35"]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("digts", "There is no config digts. Did you mean digits?"),
        ("configs/nothing.py", "There is no config file configs/nothing.py."),
        ("digits:tiny", "'tiny' is not understood"),
        ("own", "To read the file here, write own.py."),
        ("own.py", "own.py does not load: it defines no function get_config()."),
        ("wrong.py", "wrong.py does not load: NameError"),
    ],
)
def test_a_config_that_cannot_be_loaded_is_one_message(location, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("")
    Path("wrong.py").write_text("nothing")
    with pytest.raises(ValueError) as refusal:
        lska_jax.load_config(location)
    assert said in str(refusal.value)


def test_no_config_at_all_says_how_one_is_given():
    said = "--config is missing, as in: python train.py --config configs/digits.py"
    with pytest.raises(ValueError, match=said):
        read_config(None, [], "python train.py")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("config.optimizer.learing_rate = 5e-4", "'optimizer.learing_rate'. Did you mean"),
        ("config.model.drop_rat = 0.1", "'model.drop_rat'. Did you mean model.drop_rate"),
        ("config.optimiser = {'epochs': 3}", "'optimiser.epochs'. Did you mean optimizer.epochs"),
        ("del config.training.seed", "The config lacks 'training.seed'"),
    ],
)
def test_a_misspelt_or_missing_key_is_refused_in_a_file_and_from_python(change, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        lska_jax.load_config(write_config(tmp_path / "own.py", change))
    config = lska_jax.load_config("digits").unlock()
    exec(change)
    with pytest.raises(ValueError, match=said):
        lska_jax.train(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_from_python_is_locked():
    with pytest.raises(AttributeError, match="learing_rate"):
        lska_jax.load_config("digits").optimizer.learing_rate = 5e-4


@pytest.mark.parametrize(
    "line",
    [
        "--config.model.k=35",
        "--config.model.k 35",
        "-config.model.k=29 --config.model.k=35",
        "--config.data.num_workers -1 --config.model.k=35 --config.model.remat",
    ],
)
def test_values_are_replaced_in_every_form_of_an_option(line):
    words = line.split()
    config, rest = read_config("digits", [*words, "x"], "train")
    assert config.model.k == 35
    assert config.model.remat == ("--config.model.remat" in words)
    assert rest == ["x"]
