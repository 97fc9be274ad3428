"""Whole programs on disk: read in place of made, and made again where anything differs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.running import compilation_cache, kept_programs
from lska_jax.running.kept_programs import keep_program

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[None]:
    """A folder for compiled programs, in a process that has one device."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", lambda _: None)
    monkeypatch.setattr(kept_programs, "_code_hash", lambda: "code")
    before = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009
    yield compilation_cache.use_compilation_cache(str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache._used_folder = None


def doubled(made: list[str], described: str = "twice", **arrays) -> np.ndarray:
    """Double an array by a kept program; ``made`` grows where it is not on the disk."""

    def make():
        made.append(described)
        return lambda arrays, images: arrays["factor"] * images

    arguments = ({"factor": jnp.float32(2), **arrays}, IMAGES)
    program = keep_program(make, *arguments, name="doubled", described=described)
    return np.asarray(program(*arguments))


def test_a_program_is_made_once_for_what_decides_it(folder):
    made: list[str] = []
    for _ in range(2):
        np.testing.assert_array_equal(doubled(made), 2 * IMAGES)
    assert made == ["twice"]
    doubled(made, "twice, in other words")
    doubled(made, shift=jnp.float32(0))
    assert made == ["twice", "twice, in other words", "twice"]
    # Sealed, so that a flipped bit is found before it is loaded.
    entries = list(folder.glob("doubled-*-cache"))
    assert len(entries) == 3 and all(compilation_cache._seal_of(e).exists() for e in entries)


def test_what_cannot_be_loaded_is_made_again_and_replaced(folder):
    made: list[str] = []
    doubled(made)
    (entry,) = folder.glob("doubled-*-cache")
    entry.write_bytes(b"of another build")
    np.testing.assert_array_equal(doubled(made), 2 * IMAGES)
    assert len(made) == 2
    doubled(made)
    assert len(made) == 2


def test_nothing_is_kept_where_no_folder_is_used_or_there_are_several_devices(folder, monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    doubled(made)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(compilation_cache, "_used_folder", None)
    doubled(made)
    assert len(made) == 2 and not list(folder.glob("doubled-*"))
