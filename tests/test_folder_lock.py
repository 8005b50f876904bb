"""The lock of a folder: one process holds it, and its end releases it, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from fcnseg.storage.folder_lock import LOCK_FILE, FolderInUseError, locked_folder

HOLD = """
import sys, time
from pathlib import Path
from fcnseg.storage.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1]), argument="run_dir"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_has_the_folder(tmp_path, holder):
    message = f"run_dir must not be in use, got {tmp_path}, which process {holder.pid} on "
    with (
        pytest.raises(FolderInUseError, match=message),
        locked_folder(tmp_path, argument="run_dir"),
    ):
        pass


def test_a_killed_process_leaves_the_folder_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with locked_folder(tmp_path, argument="run_dir"):
        assert (tmp_path / LOCK_FILE).exists()
    assert not any(tmp_path.iterdir())


def test_the_lock_is_waited_for(tmp_path, holder):
    started = time.monotonic()
    with (
        pytest.raises(FolderInUseError),
        locked_folder(tmp_path, argument="run_dir", wait_seconds=0.5),
    ):
        pass
    assert time.monotonic() - started >= 0.5
    holder.kill()
    with locked_folder(tmp_path, argument="run_dir", wait_seconds=60):
        pass


def test_an_error_in_the_block_releases_it(tmp_path):
    with pytest.raises(KeyError), locked_folder(tmp_path, argument="run_dir"):
        raise KeyError
    with locked_folder(tmp_path, argument="run_dir"):
        pass
