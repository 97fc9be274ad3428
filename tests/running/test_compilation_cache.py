"""Compiled programs on disk: where, what is kept, and what is not trusted."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from PIL import Image

import lska_jax
from lska_jax import create_model
from lska_jax.running import compilation_cache
from lska_jax.running.compilation_cache import default_folder, use_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)
ROOT = Path(__file__).parents[2]
# Compiles one program through the cache of the folder, and says how many came from the disk.
PROGRAM = """
import sys, jax, jax.numpy as jnp
from lska_jax.running import compilation_cache
compilation_cache._MIN_COMPILE_SECONDS = 0.0
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)
compilation_cache.use_compilation_cache(sys.argv[1])
jax.jit(lambda x: x @ x + 1)(jnp.ones((8, 8))).block_until_ready()
print("hits", sum("cache_hits" in hit for hit in hits))
"""


@pytest.fixture(autouse=True)
def settings_as_before(monkeypatch) -> Any:
    """Leave JAX's settings and listeners as they were: other tests compile too."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", lambda _: None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run_program(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_a_second_start_reads_what_the_first_compiled_and_a_damaged_entry_is_compiled_again(
    tmp_path,
):
    folder = tmp_path / "cache"
    assert "hits 0" in run_program(folder)
    entries = sorted(folder.glob("*-cache"))
    # One is damaged; the others show that a second start reads them.
    assert len(entries) > 1
    assert all(entry.with_name(f"{entry.name}.sha256").exists() for entry in entries)
    damaged = entries[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    said = run_program(folder)
    assert f"Removed a damaged compiled program: {damaged}" in said
    assert f"hits {len(entries) - 1}" in said
    assert f"hits {len(entries)}" in run_program(folder)


def test_the_default_folder_is_the_user_s_cache_and_tells_machines_apart(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = default_folder()
    assert folder.parent == tmp_path / "lska_jax" / "xla"
    monkeypatch.setattr(compilation_cache, "_machine", lambda: "another")
    assert default_folder() != folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder().is_relative_to(tmp_path / "home" / ".cache")


def test_only_the_user_can_write_to_a_new_folder(tmp_path):
    folder = use_compilation_cache(str(tmp_path / "new"))
    assert folder is not None
    assert folder.stat().st_mode & 0o077 == 0
    assert getattr(jax.config, "jax_compilation_cache_dir") == str(folder)  # noqa: B009


def test_off_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert use_compilation_cache("off") is None
    assert not list(tmp_path.iterdir())
    assert not getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009


def test_a_folder_that_jax_was_told_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "default"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert use_compilation_cache() is None
    assert getattr(jax.config, "jax_compilation_cache_dir") == str(tmp_path / "own")  # noqa: B009
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_costs_a_message_only(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert use_compilation_cache(str(tmp_path / "file" / "cache")) is None
    assert "Compiled programs are not kept" in capsys.readouterr().err


def test_an_entry_without_a_seal_goes_once_nobody_can_be_writing_it(tmp_path):
    fresh, old = tmp_path / "jit_a-cache", tmp_path / "jit_b-cache"
    fresh.write_bytes(b"being written")
    old.write_bytes(b"of a killed process")
    os.utime(old, (0, 0))
    use_compilation_cache(str(tmp_path))
    assert fresh.exists()
    assert not old.exists()


def test_the_oldest_entries_go_where_there_are_too_many(tmp_path, monkeypatch):
    for age, name in enumerate(("new", "middle", "old")):
        entry = tmp_path / f"jit_{name}-cache"
        entry.write_bytes(bytes(100))
        os.utime(entry, (2e9 - age, 2e9 - age))
    monkeypatch.setattr(compilation_cache, "_LARGEST_FOLDER", 250)
    use_compilation_cache(str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*-cache")) == [
        "jit_middle-cache",
        "jit_new-cache",
    ]


def test_without_a_home_nothing_is_kept_and_the_program_goes_on(monkeypatch, capsys):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    jax.config.update("jax_compilation_cache_dir", None)
    assert use_compilation_cache() is None
    assert "HOME is not set" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, mode, capsys):
    tmp_path.chmod(mode)
    assert use_compilation_cache(str(tmp_path)) is None
    error = capsys.readouterr().err
    assert f"others can write to {tmp_path}" in error and f"chmod go-w {tmp_path}" in error


def small_network(**arguments: Any) -> Any:
    return create_model("van_lska_tiny", k=5, dims=(8,), depths=(1,), ffn_ratios=(2,), **arguments)


@pytest.fixture
def nothing_kept(monkeypatch, tmp_path) -> Path:
    """Set JAX as a new process has it, with an empty folder for what a user keeps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.setattr(compilation_cache, "_used_folder", None)
    return tmp_path


def test_create_model_keeps_programs_in_a_process_that_does_nothing_else(nothing_kept):
    small_network(features_only=True)
    assert jax.config.jax_compilation_cache_dir == str(default_folder())
    small_network(compilation_cache=str(nothing_kept / "own"))
    assert jax.config.jax_compilation_cache_dir == str(nothing_kept / "own")


def test_create_model_leaves_settings_alone_where_it_is_told_to_and_where_nothing_is_kept(
    nothing_kept, tmp_path
):
    small_network(features_only=True, compilation_cache="off")
    assert jax.config.jax_compilation_cache_dir is None
    use_compilation_cache("off")
    small_network()
    assert jax.config.jax_compilation_cache_dir is None
    assert not jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    small_network()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "told")


def test_predict_that_keeps_nothing_builds_a_network_that_keeps_nothing(nothing_kept):
    photo = nothing_kept / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    lska_jax.predict("box:cifar10", photo, compilation_cache="off")
    assert jax.config.jax_compilation_cache_dir is None
