"""Files on any file system: found, listed, copied, and written when they are complete."""

from __future__ import annotations

import errno
import os

import pytest

from fcnseg.errors import InputError, MissingExtraError, OutputError
from fcnseg.storage import files
from fcnseg.storage.file_systems import RemotePath, upload
from fcnseg.storage.whole_file import (
    atomic_write,
    check_free,
    check_output_file,
    check_output_folder,
    write_whole,
)

TREE = {"a.txt": b"a", "b/c.txt": b"cc", "b/d/e.txt": b"", "b c[1]/f*.txt": b"ffff"}


@pytest.fixture(params=["a folder", "an object store"])
def root(request, tmp_path, objects):
    """A folder with the files of TREE, here or elsewhere."""
    here = request.param == "a folder"
    folder = str(tmp_path / "tree") if here else "memory://bucket/tree"
    for name, content in TREE.items():
        if here:
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_bytes(content)
        else:
            objects[f"{folder}/{name}"] = content
    if not here:
        objects["memory://bucket/tree_2/a.txt"] = b"of another folder"
    return folder


def test_files_are_found_and_listed_alike(root):
    assert files.list_sizes(root) == {f"{root}/{name}": len(TREE[name]) for name in TREE}
    assert files.list_folder(root) == sorted(files.list_sizes(root))
    assert files.list_folder(f"{root}/none") == []
    assert files.children(root) == {"a.txt": False, "b": True, "b c[1]": True}
    assert files.size(f"{root}/b/c.txt") == 2
    assert files.exists(f"{root}/b/d/e.txt")
    assert not files.exists(f"{root}/b")
    assert files.is_folder(f"{root}/b")
    assert not files.is_folder(f"{root}/a.txt")
    assert not files.is_folder(f"{root}/a")


def test_files_are_read_alike(root):
    assert files.read_text(f"{root}/b/c.txt") == "cc"
    assert files.read_start(f"{root}/b c[1]/f*.txt", 2) == b"ff"
    assert files.read_start(f"{root}/b/d/e.txt", 2) == b""
    for read in (files.read_bytes, files.read_text):
        with pytest.raises(InputError, match=f"^no such file: {root}/none$"):
            read(f"{root}/none")
    with pytest.raises(InputError, match=f"^no such folder: {root}/none$"):
        files.children(f"{root}/none")


def test_files_are_copied_alike(root):
    with files.local_copy(root) as copy:
        assert copy.name == "tree"
        assert {name: (copy / name).read_bytes() for name in TREE} == TREE


def test_files_are_deleted_alike(root):
    files.delete([f"{root}/b c[1]/f*.txt"])
    files.delete_folder(f"{root}/b")
    files.delete_folder(f"{root}/none")
    assert files.list_folder(root) == [f"{root}/a.txt"]


def test_files_are_written_alike(root):
    write_whole(f"{root}/a.txt", "new")
    with pytest.raises(RuntimeError):
        fail_to_write(f"{root}/a.txt", RuntimeError())
    assert files.read_text(f"{root}/a.txt") == "new"
    with atomic_write(f"{root}/folder") as unfinished:
        (unfinished / "deep").mkdir(parents=True)
        (unfinished / "deep" / "file").write_text("text")
    assert files.read_text(f"{root}/folder/deep/file") == "text"
    assert len(files.list_folder(root)) == len(TREE) + 1
    assert files.list_unfinished(root) == []


def fail_to_write(path, error):
    with atomic_write(path) as unfinished:
        unfinished.write_text("half")
        raise error


def test_modified_is_the_time_of_the_newest_file(tmp_path):
    (tmp_path / "in").mkdir()
    for name, seconds in {"a": 1e9, "b": 2e9}.items():
        (tmp_path / "in" / name).write_text(name)
        os.utime(tmp_path / "in" / name, (seconds, seconds))
    assert files.modified(tmp_path / "in" / "a") == 1e9
    assert files.modified(tmp_path / "in") == 2e9
    assert files.modified(tmp_path / "none") is files.modified("s3://bucket/a") is None


def test_full_disk_names_the_place(root):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"^cannot write .*/a.txt: No space left on device$"):
        fail_to_write(f"{root}/a.txt", full)


def test_outputs_are_checked_alike(root):
    check_output_folder(root, argument="output")
    check_output_file(f"{root}/page.html")
    check_free([f"{root}/page.html"], overwrite=False, folders=[f"{root}/pictures"])
    for taken in ({"paths": [f"{root}/a.txt"]}, {"paths": (), "folders": [f"{root}/b"]}):
        with pytest.raises(InputError, match="is there already: give --overwrite"):
            check_free(**taken, overwrite=False)
        check_free(**taken, overwrite=True)
    assert len(files.list_folder(root)) == len(TREE)


def test_no_more_is_copied_than_is_asked_for(objects):
    objects.update({f"memory://b/{name}": name.encode() * 10 for name in ("a.mhd", "a.raw", "c")})
    with files.local_copy("memory://b/a.mhd", beside=["memory://b/a.raw", "memory://b/none"]) as it:
        assert sorted(path.name for path in it.parent.iterdir()) == ["a.mhd", "a.raw"]
    with files.local_copy("memory://b/a.mhd", head=7) as it:
        assert it.read_bytes() == b"a.mhda."
    whole = lambda start: start == b"ccc"  # noqa: E731
    with files.local_copy("memory://b", head=3, copied_whole=whole) as it:
        assert {path.name: path.stat().st_size for path in it.iterdir()} == {
            "a.mhd": 3,
            "a.raw": 3,
            "c": 10,
        }


def test_name_that_leads_out_of_its_folder_is_refused(objects, tmp_path):
    objects["memory://b/series/../../evil"] = b""
    objects["memory://b/double//a"] = b"inside"
    with files.local_copy("memory://b/double") as copy:
        assert (copy / "a").read_bytes() == b"inside"
    with (
        pytest.raises(InputError, match="a name must not lead out of its folder, got memory://b/"),
        files.local_copy("memory://b/series"),
    ):
        pass


def test_parent_keeps_the_scheme():
    assert files.parent("s3://bucket/a/b/") == "s3://bucket/a"
    assert files.parent("s3://bucket/a") == "s3://bucket"
    assert files.join(files.parent("s3://bucket/a"), "b") == "s3://bucket/b"


def test_scheme_that_nothing_opens_is_named():
    with pytest.raises(InputError, match=r"^no file system opens nowhere://, got nowhere://a$"):
        files.exists("nowhere://a")


def test_missing_library_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(
        MissingExtraError,
        match=r"s3fs is not installed: it comes with fcnseg's extra s3, pip install 's3fs>=",
    ):
        files.exists("s3://bucket/a")


def test_store_that_fails_is_named(objects, monkeypatch, tmp_path):
    class UnreachableError(Exception):  # clients have errors of their own
        pass

    def fail(*args, **options):
        raise UnreachableError

    system = RemotePath.of("memory://b/a").file_system
    for method in ("info", "find", "ls", "cat_file", "put", "rm_file", "size"):
        monkeypatch.setattr(system, method, fail)
    for work, verb in (
        (files.exists, "look for"),
        (files.list_folder, "list"),
        (files.children, "list"),
        (files.read_bytes, "read"),
        (lambda path: files.delete([path]), "delete"),
    ):
        with pytest.raises(InputError, match=f"^cannot {verb} memory://b/a: UnreachableError$"):
            work("memory://b/a")
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match=r"^cannot write memory://b/a: UnreachableError$"):
        upload(tmp_path / "a", "memory://b/a")


@pytest.mark.parametrize("fails", [False, True])
def test_store_that_shows_half_an_upload_gets_the_name_afterwards(tmp_path, monkeypatch, fails):
    """fsspec's own file:// stands in for stores such as hdfs:// and sftp://."""
    place = f"file://{tmp_path}/deep/a"
    (tmp_path / "here").write_text("whole")
    system = RemotePath.of(place).file_system
    put = system.put_file

    def put_half(source, target, **options):
        assert "/.tmp-" in target
        if fails:
            raise OSError("connection lost")
        put(source, target, **options)

    monkeypatch.setattr(system, "put_file", put_half)
    if fails:
        with pytest.raises(OutputError, match="connection lost"):
            upload(tmp_path / "here", place)
    else:
        upload(tmp_path / "here", place)
        assert (tmp_path / "deep" / "a").read_text() == "whole"
    assert not list((tmp_path / "deep").glob(".tmp-*"))
