"""A file is there whole, or as it was."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from fcnseg.errors import InputError, OutputError
from fcnseg.storage.whole_file import (
    atomic_write,
    check_output_file,
    make_folder,
    put_in_place,
    write_whole,
)


def test_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "mask.nii.gz"
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(b"whole")
        assert unfinished.name == path.name
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "run.json"
    write_whole(path, "before\n")

    def fail():
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_line_ends_are_kept(tmp_path):
    write_whole(tmp_path / "table.csv", "a\nb\r\n")
    assert (tmp_path / "table.csv").read_bytes() == b"a\nb\r\n"


class Calls:
    """What reaches the disk, in its order: flushes by the name of what is flushed, and renames."""

    def __init__(self, monkeypatch):
        self.made = []
        fsync, replace = os.fsync, Path.replace

        def note_flush(descriptor):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.made.append(f"flush {path.name}")
            fsync(descriptor)

        def note_rename(path, target):
            self.made.append(f"rename {Path(target).name}")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", note_flush)
        monkeypatch.setattr(Path, "replace", note_rename)


def test_file_is_on_the_disk_before_its_name_and_the_name_after_that(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    write_whole(tmp_path / "run.json", "{}")
    assert calls.made == ["flush run.json", "rename run.json", f"flush {tmp_path.name}"]


def test_folder_is_on_the_disk_with_all_that_is_in_it(tmp_path, monkeypatch):
    whole = tmp_path / "new" / "model"
    (whole / "variables").mkdir(parents=True)
    (whole / "variables" / "index").write_text("1")
    (whole / "graph.pb").write_text("2")
    calls = Calls(monkeypatch)
    put_in_place(whole, tmp_path / "1")
    *flushed, model, rename, parent = calls.made
    assert sorted(flushed) == ["flush graph.pb", "flush index", "flush variables"]
    assert flushed.index("flush index") < flushed.index("flush variables")
    assert (model, rename, parent) == ("flush model", "rename 1", f"flush {tmp_path.name}")
    assert (tmp_path / "1" / "variables" / "index").read_text() == "1"


def test_converted_file_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    shard_writer = pytest.importorskip("fcnseg.beam.shard_writer")
    calls = Calls(monkeypatch)
    with shard_writer.written_to(f"{tmp_path}/train.tfrecord") as file:
        file.write(b"1")
        assert not calls.made
    names = ("flush", "rename")
    assert calls.made == [*(f"{name} train.tfrecord" for name in names), f"flush {tmp_path.name}"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_system_that_flushes_no_folder_is_no_obstacle(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_whole(tmp_path / "run.json", "{}")
    assert (tmp_path / "run.json").read_text() == "{}"


def fill_disk(monkeypatch):
    """Nothing can be flushed any more."""

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def test_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    write_whole(tmp_path / "run.json", "before")
    fill_disk(monkeypatch)
    with pytest.raises(OutputError, match=r"^cannot write .*/run\.json: No space left on device$"):
        write_whole(tmp_path / "run.json", "after")
    assert (tmp_path / "run.json").read_text() == "before"


def not_a_folder(tmp_path):
    """Paths that no folder can have, each with what is said of it."""
    file = tmp_path / "file"
    file.write_text("")
    return {file: ", got the file", file / "below": "Not a directory"}


def test_folder_that_cannot_be_made_is_named_by_its_argument(tmp_path):
    for path, message in not_a_folder(tmp_path).items():
        with pytest.raises(InputError, match=f"^run_dir must be a folder.*{message}"):
            make_folder(path, argument="run_dir")


def test_folder_that_cannot_be_written_to_is_named_by_its_argument(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # root may write everywhere
    message = f"output must be a folder that can be written to, got {tmp_path}: Permission denied"
    with pytest.raises(InputError, match=message):
        make_folder(tmp_path, argument="output")
    message = f"output must be in a folder that can be written to, got {tmp_path}/a: Permission"
    with pytest.raises(InputError, match=message):
        check_output_file(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "output must be a file, got the folder"),
        ("nowhere/page.html", "output must be in a folder that is there, got"),
        ("file/page.html", "output must be in a folder that is there, got"),
    ],
)
def test_place_of_a_file_is_checked_beforehand(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        check_output_file(tmp_path / name)
    check_output_file(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
