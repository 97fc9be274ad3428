"""Checkpoints: the same bits back, the right steps kept, nothing loaded that does not fit."""

import re
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.training.checkpoint.checkpointer import (
    CheckpointDamaged,
    Checkpointer,
    CheckpointMismatch,
    CheckpointSaveFailed,
    CheckpointWarning,
    tree_difference,
)
from tests.training.checkpoint_states import (
    Pair,
    abstract,
    assert_same_bits,
    flip_a_bit,
    make_state,
    save_steps,
)


def test_a_restored_state_has_the_same_bits_types_and_structure(tmp_path):
    state = make_state()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(5, state, metadata={})
        restored, _ = checkpointer.restore(abstract(state))
    assert_same_bits(restored, state)


def test_metadata_comes_back_as_json_keeps_it(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        metadata = {"epoch": 1, "sizes": (3, 4), "loss": float("nan"), "nested": {"k": 23}}
        checkpointer.save(5, make_state(), metadata=metadata)
        assert checkpointer.metadata(5) == {
            "epoch": 1,
            "sizes": [3, 4],
            "loss": None,
            "nested": {"k": 23},
        }


def test_a_state_may_be_donated_right_after_an_asynchronous_save(tmp_path):
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    state = {"kernel": jnp.asarray(values)}
    overwrite = jax.jit(lambda tree: {"kernel": tree["kernel"] * 0 - 1}, donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, metadata={})
        for _ in range(3):
            state = overwrite(state)
        jax.block_until_ready(state)
        restored, _ = checkpointer.restore(abstract(state))
    assert np.array(restored["kernel"]).tobytes() == values.tobytes()


def test_the_newest_and_the_best_steps_are_kept(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.1, 4: 0.3, 5: 0.3, 6: 0.2}
    with Checkpointer(tmp_path, keep_latest=2, keep_best=1) as checkpointer:
        for step, metric in scores.items():
            checkpointer.save(step, make_state(step), metadata={}, metric=metric)
        checkpointer.wait()
        assert checkpointer.all_steps() == [2, 5, 6]
        assert (checkpointer.best_step(), checkpointer.latest_step()) == (2, 6)


def test_a_worse_newest_step_is_never_deleted_for_a_better_old_one(tmp_path):
    save_steps(tmp_path, [1, 2, 3], metrics={1: 0.9, 2: 0.8, 3: 0.1}, keep_latest=1)
    with Checkpointer(tmp_path, keep_latest=1) as checkpointer:
        assert checkpointer.all_steps() == [1, 3]


@pytest.mark.parametrize("metric", [None, float("nan"), float("inf")])
def test_a_step_without_a_finite_metric_is_kept_as_newest_but_never_as_best(tmp_path, metric):
    metrics = {1: 0.5, 2: metric, 3: metric, 4: metric}
    save_steps(tmp_path, [1, 2, 3, 4], metrics=metrics, keep_latest=2)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.all_steps() == [1, 3, 4]
        assert checkpointer.best_step() == 1


def test_the_newest_of_equally_good_steps_is_the_best(tmp_path):
    save_steps(tmp_path, [1, 2, 3], metrics={1: 0.5, 2: 0.5}, keep_latest=1)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.all_steps() == [2, 3]
        assert checkpointer.best_step() == 2


def test_an_empty_folder_has_no_step_and_restoring_from_it_says_so(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() is None
        assert checkpointer.latest_intact_step() is None
        assert checkpointer.best_step() is None
        with pytest.raises(FileNotFoundError, match="steps there: none"):
            checkpointer.restore(abstract(make_state()))


def test_every_difference_is_listed_and_nothing_is_loaded(tmp_path):
    saved = {"head": {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}, "old": jnp.zeros(2)}
    wanted = {
        "head": {"kernel": jnp.zeros((64, 7)), "bias": jnp.zeros(10, jnp.bfloat16)},
        "new": jnp.zeros(3),
    }
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, saved, metadata={})
        with pytest.raises(CheckpointMismatch) as caught:
            checkpointer.restore(abstract(wanted))
    text = str(caught.value)
    assert "4 differences" in text
    assert "head/kernel: checkpoint has (64, 10), model wants (64, 7)" in text
    assert "head/bias: checkpoint has float32, model wants bfloat16" in text
    assert "new: missing from the checkpoint, model wants (3,) float32" in text
    assert "old: checkpoint has (2,) float32, unexpected by the model" in text


def test_a_long_list_of_differences_is_cut_with_a_count():
    saved = {f"layer{number}": np.zeros(2) for number in range(30)}
    lines = tree_difference(saved, {}, limit=20)
    assert len(lines) == 21
    assert lines[-1] == "... and 10 more"


def test_equal_trees_have_no_difference_whatever_their_containers():
    left = Pair(np.zeros(2), {"a": np.ones(3)})
    assert tree_difference(left, {"first": np.zeros(2), "second": {"a": np.ones(3)}}) == []


def test_a_flipped_bit_is_found_and_the_previous_step_is_used(tmp_path):
    save_steps(tmp_path, [1, 2])
    victim = flip_a_bit(tmp_path / "2")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.warns(CheckpointWarning, match=victim.name):
            restored, metadata = checkpointer.restore(abstract(make_state()))
        assert_same_bits(restored, make_state(1))
        assert metadata == {"epoch": 1}
        assert (tmp_path / "2.damaged").is_dir()
        checkpointer.save(2, make_state(2), metadata={"epoch": 2})
        checkpointer.wait()
        assert checkpointer.all_steps() == [1, 2]


@pytest.mark.parametrize("damage", ["missing", "truncated", "manifest", "metadata"])
def test_other_damage_to_the_newest_step_is_found_too(tmp_path, damage):
    save_steps(tmp_path, [1, 2])
    victim = tmp_path / "2" / "manifest.json"
    if damage == "missing":
        victim = next((tmp_path / "2" / "state").glob("d/*"))
        victim.unlink()
    elif damage == "truncated":
        victim = tmp_path / "2" / "state" / "_METADATA"
        victim.write_bytes(victim.read_bytes()[:-1])
    elif damage == "manifest":
        victim.unlink()
    else:
        text = victim.read_text().replace('"epoch": 2', '"epoch": 3')
        assert '"epoch": 3' in text
        victim.write_text(text)
    with Checkpointer(tmp_path) as checkpointer, pytest.warns(CheckpointWarning, match=victim.name):
        restored, _ = checkpointer.restore(abstract(make_state()))
    assert_same_bits(restored, make_state(1))


@pytest.mark.parametrize("name", ["metrics/metrics", "_CHECKPOINT_METADATA"])
def test_damage_that_orbax_cannot_open_a_folder_with_is_found_before(tmp_path, name):
    save_steps(tmp_path, [1, 2], metrics={1: 0.5, 2: 0.6})
    (tmp_path / "2" / name).write_text("[")
    if name == "_CHECKPOINT_METADATA":
        (tmp_path / "2" / name).write_text("[]")
    with pytest.warns(CheckpointWarning, match=Path(name).name):
        checkpointer = Checkpointer(tmp_path)
    with checkpointer:
        restored, _ = checkpointer.restore(abstract(make_state()))
    assert_same_bits(restored, make_state(1))
    (tmp_path / "1" / name).write_text("[]")
    with pytest.raises(CheckpointDamaged, match="start afresh"):
        Checkpointer(tmp_path)


def test_a_damaged_step_asked_for_by_number_is_refused(tmp_path):
    save_steps(tmp_path, [1, 2])
    victim = flip_a_bit(tmp_path / "2")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointDamaged, match=rf"{victim.name}.*Other steps there: \[1\]"):
            checkpointer.restore(abstract(make_state()), step=2)
        assert checkpointer.all_steps() == [1, 2]


def test_the_step_to_go_on_from_is_known_before_anything_is_restored(tmp_path):
    save_steps(tmp_path, [1, 2])
    victim = flip_a_bit(tmp_path / "2")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.warns(CheckpointWarning, match=victim.name):
            assert checkpointer.latest_intact_step() == 1
        _, metadata = checkpointer.restore(abstract(make_state()))
    assert metadata == {"epoch": 1}


def test_a_run_whose_only_step_is_damaged_does_not_start_afresh_silently(tmp_path):
    save_steps(tmp_path, [1])
    flip_a_bit(tmp_path / "1")
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 1
        with pytest.raises(CheckpointDamaged, match="start afresh"):
            checkpointer.restore(abstract(make_state()))


def test_an_unfinished_save_is_removed_at_the_next_start(tmp_path):
    (tmp_path / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() is None
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_deletion_is_finished_at_the_next_start(tmp_path):
    save_steps(tmp_path, [1, 2])
    next((tmp_path / "1" / "state").glob("d/*")).unlink()
    with Checkpointer(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2"]


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), metadata={"epoch": 1}, metric=0.5)
        checkpointer.save(1, make_state(2), metadata={"epoch": 2})
        restored, metadata = checkpointer.restore(abstract(make_state()))
    assert_same_bits(restored, make_state(1))
    assert metadata == {"epoch": 1}


def test_a_metric_for_a_step_saved_without_one_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), metadata={})
        with pytest.raises(ValueError, match="evaluate first, then save once"):
            checkpointer.save(1, make_state(1), metadata={}, metric=0.5)


def save_anew_with_metric(directory):
    """Save step 1 without, then with a metric, up to where the second save is to begin."""
    checkpointer = Checkpointer(directory)
    checkpointer.save(1, make_state(1), metadata={"due": True})
    checkpointer.wait()
    return checkpointer


def test_a_step_saved_without_its_metric_can_be_saved_anew_with_it(tmp_path):
    with save_anew_with_metric(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), metadata={"due": False}, metric=0.5, is_replacing=True)
        checkpointer.wait()
        assert checkpointer.best_step() == 1
        restored, metadata = checkpointer.restore(abstract(make_state()))
    assert_same_bits(restored, make_state(1))
    assert metadata == {"due": False}
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_step_stays_where_its_replacement_was_cut_short(tmp_path):
    save_anew_with_metric(tmp_path).close()
    # What a kill leaves between the two: the old step renamed, the new one half written.
    (tmp_path / "1").rename(tmp_path / "1.replaced")
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_intact_step() == 1
        assert checkpointer.metadata(1) == {"due": True}
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_replaced_step_is_removed_when_the_new_one_is_complete(tmp_path):
    save_steps(tmp_path, [1], metrics={1: 0.5})
    shutil.copytree(tmp_path / "1", tmp_path / "1.replaced")
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.best_step() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_the_duration_of_every_save_is_reported(tmp_path):
    said: list[str] = []
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.report = said.append
        checkpointer.save(3, make_state(), metadata={})
    assert len(said) == 1
    assert re.fullmatch(r"Saved step 3 in \d+\.\d s\.", said[0])


def test_a_save_that_takes_too_long_has_failed_and_nothing_waits_for_it(tmp_path, monkeypatch):
    released = threading.Event()
    save_steps(tmp_path, [1])
    monkeypatch.setattr(
        "lska_jax.training.checkpoint.checkpointer.write_manifest",
        lambda *arguments, **named: released.wait(60),
    )
    try:
        with Checkpointer(tmp_path, save_seconds=1.0) as checkpointer:
            checkpointer.save(2, make_state(2), metadata={})
            with pytest.raises(CheckpointSaveFailed) as caught:
                checkpointer.wait()
    finally:
        released.set()
    message = str(caught.value)
    assert "not complete after 1 s; raise training.save_seconds" in message
    assert "The last good step is 1" in message


@pytest.mark.parametrize(
    ("state", "metadata", "message"),
    [
        ({"a": jnp.zeros(2), "b": 3}, {}, "b is a int"),
        ({"a": jnp.zeros(2)}, {"path": Path("x")}, "plain JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(
    tmp_path, state, metadata, message
):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(ValueError, match=message):
        checkpointer.save(1, state, metadata=metadata)
    assert list(tmp_path.iterdir()) == []
