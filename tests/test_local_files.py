"""Records of an object store on this machine: copied once, checked, and known by their manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from fcnseg.errors import DatasetError, InputError
from fcnseg.records import SPLITS, Dataset, read_dataset_info
from fcnseg.records.damage import check_files, find_damage
from fcnseg.records.local_files import cache_folder

URL = "memory://hospital/records"


@pytest.fixture
def remote(dataset, objects, tmp_path, monkeypatch):
    """A dataset in an object store, and the cache of this test."""
    monkeypatch.setenv("FCNSEG_CACHE", str(tmp_path / "cache"))
    objects.update({f"{URL}/{path.name}": path.read_bytes() for path in dataset.iterdir()})
    return objects


def local_dataset(url: str | Path) -> Path:
    """The folder of all files of a dataset on this machine."""
    dataset = Dataset.open(url)
    paths = dataset.paths(SPLITS)
    assert {Path(path).parent for path in paths} == {dataset.local.folder}
    assert all(Path(path).is_file() for path in paths)
    return dataset.local.folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_local_dataset_is_itself(dataset):
    assert local_dataset(dataset) == dataset
    assert Dataset.open(dataset).local.folder == dataset


def test_manifest_is_read_where_it_lies(dataset, remote):
    info = read_dataset_info(URL)
    assert info == read_dataset_info(dataset)
    check_files(URL, info, SPLITS)
    assert list(find_damage(URL, info)) == []
    with pytest.raises(DatasetError, match=r"^no such folder of records: memory://hospital/none$"):
        read_dataset_info("memory://hospital/none")
    del remote[f"{URL}/COMPLETED"]
    with pytest.raises(DatasetError, match=f"^{URL} is not a finished dataset: COMPLETED is"):
        read_dataset_info(URL)


def test_dataset_is_copied_once(dataset, remote, caplog):
    caplog.set_level("INFO")
    folder = local_dataset(URL)
    assert content(folder) == {path.name: path.read_bytes() for path in dataset.glob("*.tfrecord")}
    assert "copying " in caplog.text
    caplog.clear()
    for name in list(remote):
        if name.endswith(".tfrecord"):
            del remote[name]
    assert local_dataset(URL) == folder
    assert not caplog.text


def test_another_dataset_under_the_same_url_is_another(remote):
    first = local_dataset(URL)
    info = json.loads(remote[f"{URL}/dataset_info.json"])
    remote[f"{URL}/dataset_info.json"] = json.dumps(info | {"seed": 7}).encode()
    assert local_dataset(URL) != first


def test_file_that_was_cut_here_is_copied_again(remote):
    folder = local_dataset(URL)
    shard = next(folder.glob("*.tfrecord"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    local_dataset(URL)
    assert shard.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "it has .* bytes, and dataset_info.json says"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its checksum is not that in"),
    ],
)
def test_broken_file_is_named_and_not_kept(remote, change, reason):
    name = next(name for name in remote if name.endswith(".tfrecord"))
    remote[name] = change(remote[name])
    with pytest.raises(DatasetError, match=f"^{name} is broken: {reason}"):
        local_dataset(URL)
    (folder,) = (cache_folder() / "records").iterdir()
    assert name.rpartition("/")[2] not in content(folder)
    assert not list(folder.glob(".tmp-*"))
    (damage,) = find_damage(URL, read_dataset_info(URL))
    assert damage.path == name


def test_missing_file_is_named(remote):
    name = next(name for name in remote if name.endswith(".tfrecord"))
    del remote[name]
    for look in (local_dataset, lambda url: check_files(url, read_dataset_info(url), SPLITS)):
        with pytest.raises(DatasetError, match=f"^a file of the dataset is missing: {name}$"):
            look(URL)


def test_files_are_copied_when_they_are_asked_for(remote):
    local = Dataset.open(URL).local
    shard = local.info.splits["validation"].shards[0]
    assert local.path(shard).read_bytes() == remote[f"{URL}/{shard.name}"]
    assert [path.name for path in local.folder.iterdir()] == [shard.name]


def test_what_a_killed_copy_left_is_deleted_after_a_day(remote):
    folder = Dataset.open(URL).local.folder
    folder.mkdir(parents=True)
    for name, age_s in ((".tmp-old", 90000), (".tmp-at-work", 0)):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    local_dataset(URL)
    assert [path.name for path in folder.glob(".tmp-*")] == [".tmp-at-work"]


def test_cache_that_cannot_be_made_is_named(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FCNSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="^FCNSEG_CACHE must be a folder that can be written to"):
        local_dataset(URL)


def test_cache_is_in_the_users_by_default(monkeypatch):
    monkeypatch.delenv("FCNSEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/fcnseg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/fcnseg")


def test_copy_that_broke_here_is_found(remote):
    folder = local_dataset(URL)
    shard = sorted(folder.glob("*.tfrecord"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    (damage,) = Dataset.open(URL).find_damage()
    assert damage.path == str(shard)


def test_facts_of_a_dataset_are_frozen(remote):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dataset.open(URL).local.source = "another"
