"""Damaged checkpoints, thousands of ways: a ValueError or the same model, nothing else."""

import numpy as np
import pytest
from small_models import small_state_dict, write_safetensors

from lska_jax.weights import import_checkpoint
from lska_jax.weights.checkpoint_file import open_checkpoint

CASES = 300


def attempt(path, expected) -> str:
    """Open a damaged file and read it whole; return what came of it."""
    try:
        arrays = open_checkpoint(path).arrays
        values = {name: array.read() for name, array in arrays.items()}
    except ValueError as error:
        assert str(path) in str(error)
        return "refused"
    is_same = values.keys() == expected.keys() and all(
        np.array_equal(values[name], expected[name]) for name in expected
    )
    return "same" if is_same else "other"


def damaged(data: bytes, rng: np.random.Generator, limit: int) -> bytes:
    """Return data cut off, or with bits flipped or bytes left out below a limit."""
    kind, place = rng.integers(3), int(rng.integers(limit))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + 1 + int(rng.integers(16)) :]
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        changed[int(rng.integers(limit))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_damaged_safetensors_files_are_refused_or_name_other_arrays(tmp_path):
    state_dict = small_state_dict()
    source = write_safetensors(tmp_path / "a.safetensors", state_dict)
    data = source.read_bytes()
    # Below the header's end; the format has no checksum of the values behind it.
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    outcomes = []
    path = tmp_path / "b.safetensors"
    for case in range(CASES):
        path.write_bytes(damaged(data, rng, header))
        outcome = attempt(path, state_dict)
        outcomes.append(outcome)
        if outcome == "other" and case % 5 == 0:
            # A readable header with other names or types: the import refuses what is left.
            with pytest.raises(ValueError):
                import_checkpoint(path, tmp_path / "out", report=print)
    assert outcomes.count("refused") > CASES // 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_damaged_pytorch_files_are_refused_or_the_same(tmp_path, is_zip):
    torch = pytest.importorskip("torch", reason="reading .pth files needs the extra 'torch'")
    state_dict = small_state_dict()
    source = tmp_path / "a.pth"
    torch.save(
        {name: torch.from_numpy(np.array(a)) for name, a in state_dict.items()},
        source,
        _use_new_zipfile_serialization=is_zip,
    )
    data = source.read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "b.pth"
    outcomes = []
    for _ in range(CASES):
        # The old format has no checksum of values, which lie behind its pickles.
        path.write_bytes(damaged(data, rng, len(data) if is_zip else 4000))
        outcomes.append(attempt(path, state_dict))
    assert outcomes.count("refused") > CASES // 2
    if is_zip:
        assert outcomes.count("other") == 0
