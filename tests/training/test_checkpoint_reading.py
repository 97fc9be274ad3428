"""Reading checkpoints without their run, and the checks of a folder before one is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.training.checkpoint.checkpointer import (
    CheckpointDamaged,
    Checkpointer,
    check_writable,
    load_tree,
    tree_bytes,
)
from tests.training.checkpoint_states import flip_a_bit, make_state, save_steps


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/2"])
def test_a_tree_is_read_from_a_run_its_checkpoints_or_one_step(tmp_path, place):
    save_steps(tmp_path / "checkpoints", [1, 2])
    loaded = load_tree(tmp_path / place)
    wanted = make_state(2).params
    assert (loaded.step, loaded.metadata) == (2, {"epoch": 2})
    assert "opt_state" not in loaded.tree
    assert isinstance(loaded.tree["params"]["scale"], np.ndarray)
    assert loaded.tree["params"]["scale"].dtype == jnp.bfloat16
    assert loaded.tree["params"]["scale"].tobytes() == np.array(wanted["scale"]).tobytes()
    assert loaded.tree["params"]["kernel"].tobytes() == np.array(wanted["kernel"]).tobytes()
    assert loaded.tree["params"]["blocks"]["0"]["count"].tolist() == [0, 1, 2]


def test_the_best_step_or_one_by_number_can_be_read(tmp_path):
    save_steps(tmp_path, [1, 2, 3], metrics={1: 0.9, 2: 0.1})
    assert load_tree(tmp_path, step="best").step == 1
    assert load_tree(tmp_path, step=2).step == 2


def test_reading_a_tree_refuses_a_damaged_step_and_changes_nothing(tmp_path):
    save_steps(tmp_path, [1, 2])
    victim = flip_a_bit(tmp_path / "2")
    with pytest.raises(CheckpointDamaged, match=rf"{victim.name}.*Other steps there: \[1\]"):
        load_tree(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_reading_a_tree_where_there_is_none_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a run's output folder"):
        load_tree(tmp_path)
    save_steps(tmp_path, [1])
    with pytest.raises(FileNotFoundError, match=r"steps there: \[1\]"):
        load_tree(tmp_path, step=4)
    with pytest.raises(ValueError, match="'newest'"):
        load_tree(tmp_path, step="newest")


def test_a_folder_that_cannot_be_made_is_reported_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose another output folder"):
        check_writable(tmp_path / "file" / "run", bytes_needed=0)


def test_too_little_room_is_reported_before_training(tmp_path):
    with pytest.raises(OSError, match="needs 1000000.00 GB"):
        check_writable(tmp_path / "run", bytes_needed=10**15)


def test_a_writable_folder_is_left_without_a_trace_of_the_check(tmp_path):
    check_writable(tmp_path / "new" / "run", bytes_needed=1)
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_the_size_of_a_state_counts_every_byte():
    shapes = {"a": jax.ShapeDtypeStruct((3, 4), jnp.float32), "b": jnp.zeros(5, jnp.bfloat16)}
    assert tree_bytes(shapes) == 3 * 4 * 4 + 5 * 2


@pytest.mark.parametrize("numbers", [{"keep_latest": 0}, {"keep_best": -1}])
def test_keeping_fewer_steps_than_possible_is_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match="keep_"):
        Checkpointer(tmp_path, **numbers)
