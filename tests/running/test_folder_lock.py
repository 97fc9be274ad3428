"""A folder has one user at a time, and a lock ends with its process."""

import os
import signal
import subprocess
import sys

import pytest

from lska_jax.running.folder_lock import LOCK_NAME, FolderLock, InUse, lock_file

HOLDER = (
    "import sys, time\n"
    "from lska_jax.running.folder_lock import FolderLock\n"
    "with FolderLock(sys.argv[1], what='run'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


def test_a_second_user_is_refused_with_the_first_ones_name(tmp_path):
    with FolderLock(tmp_path, what="run") as first:
        assert first.is_locked
        with pytest.raises(InUse, match=f"run in {tmp_path} is in use by process {os.getpid()}"):
            FolderLock(tmp_path, what="run").__enter__()


def test_a_folder_that_was_given_back_can_be_taken(tmp_path):
    for _ in range(2):
        with FolderLock(tmp_path, what="run") as lock:
            assert lock.is_locked


def test_a_lock_ends_with_kill_9(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(InUse, match=f"process {process.pid} on"):
            FolderLock(tmp_path, what="run").__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with FolderLock(tmp_path, what="run") as lock:
        assert lock.is_locked


def test_processes_beside_the_one_that_writes_lock_nothing(tmp_path):
    with FolderLock(tmp_path, what="run", is_holder=False) as lock:
        lock.check()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_folder_that_was_replaced_is_noticed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FolderLock(folder, what="run") as lock:
        lock.check()
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / LOCK_NAME).touch()
        with pytest.raises(FileNotFoundError, match="was deleted, moved or replaced"):
            lock.check()


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (tmp_path / "file").open("a") as file:
        assert not lock_file(file)
