"""The files of a dataset on this machine: themselves, or copies of what lies in an object store.

TensorFlow's wheels open no s3://, and reading records at random wants files that can be mapped into
memory. Copies are kept in a cache folder under the SHA-256 of the manifest, so that the next run
finds them, and another dataset under the same URL does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fcnseg.errors import DatasetError
from fcnseg.records.damage import Damage, find_wrong_content
from fcnseg.records.dataset_info import (
    COMPLETED_FILE,
    INFO_FILE,
    DatasetInfo,
    ShardInfo,
    read_manifest,
)
from fcnseg.storage import files
from fcnseg.storage.file_systems import download
from fcnseg.storage.whole_file import atomic_write, make_folder

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "FCNSEG_CACHE"
"""Environment variable that names the cache folder; by default it is in the user's cache."""

_AT_ONCE = 4  # files that are copied at one time: of 128 MiB, a few fill a connection
_ABANDONED_S = 86400  # age of what a copy that was killed has left


def cache_folder() -> Path:
    """The folder for copies: that of `FCNSEG_CACHE`, else fcnseg in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnseg"


def local_dataset(directory: str | os.PathLike[str]) -> Path:
    """Copies a dataset to this machine, unless it is there.

    Args:
        directory: Folder of a finished dataset, on any file system.

    Returns:
        The folder itself if it is local, else one in the cache that is a finished dataset.

    Raises:
        DatasetError: If the dataset is missing or unfinished, or a file is not as its manifest has
            it.
        InputError: If the cache folder cannot be made or written to.
        OutputError: If the cache folder is full.
    """
    if files.is_local(directory):
        return Path(directory)
    return LocalFiles.of(directory).complete()


@dataclasses.dataclass(frozen=True)
class LocalFiles:
    """Files of a dataset on this machine, copied when they are asked for.

    Attributes:
        source: Folder of the dataset, on any file system.
        info: Its manifest.
        folder: Where the files are on this machine: `source` itself if that is local.
    """

    source: str
    info: DatasetInfo
    folder: Path

    @classmethod
    def of(cls, directory: str | os.PathLike[str]) -> LocalFiles:
        """Reads the manifest of a dataset.

        Raises:
            DatasetError: If the dataset is missing or unfinished.
            InputError: If the cache folder cannot be made or written to.
        """
        source = os.fspath(directory)
        manifest = read_manifest(source)
        info = DatasetInfo.from_json(manifest, source=files.join(source, INFO_FILE))
        if files.is_local(source):
            return cls(source, info, Path(source))
        folder = cache_folder() / "records" / hashlib.sha256(manifest).hexdigest()
        make_folder(folder, argument=CACHE_VARIABLE)
        _delete_abandoned(folder)
        return cls(source, info, folder)

    def shard(self, shard: ShardInfo) -> Path:
        """The path of a file of records.

        Raises:
            DatasetError: If the file is not as the manifest has it.
        """
        self._fetch([shard])
        return self.folder / shard.name

    def complete(self) -> Path:
        """Copies all that training reads; the marker comes last, so that it is a dataset then.

        Returns:
            The folder.

        Raises:
            DatasetError: If a file is not as the manifest has it.
        """
        if not files.is_local(self.source):
            self._fetch([shard for split in self.info.splits.values() for shard in split.shards])
            for name in (INFO_FILE, COMPLETED_FILE):
                self._copy(name)
        return self.folder

    def _fetch(self, shards: Sequence[ShardInfo]) -> None:
        """Copies those of some files that are not here yet."""
        if files.is_local(self.source):
            return
        missing = [shard for shard in shards if files.size(self.folder / shard.name) != shard.bytes]
        if not missing:
            return
        size = sum(shard.bytes for shard in missing) / 1e6
        logger.info(
            f"copying {len(missing)} of {len(shards)} files ({size:.1f} MB) of {self.source} to"
            f" {self.folder}"
        )
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._fetch_one, missing))

    def _fetch_one(self, shard: ShardInfo) -> None:
        url = files.join(self.source, shard.name)
        if not files.exists(url):
            raise DatasetError(f"a file of the dataset is missing: {url}")
        with atomic_write(self.folder / shard.name) as unfinished:
            download([url], [unfinished], named=url)
            problem = find_wrong_content(unfinished, shard)
            if problem is not None:
                raise DatasetError(str(Damage(url, problem, ())))

    def _copy(self, name: str) -> None:
        place, url = self.folder / name, files.join(self.source, name)
        if not place.exists():
            with atomic_write(place) as unfinished:
                download([url], [unfinished], named=url)


def _delete_abandoned(folder: Path) -> None:
    for unfinished in map(Path, files.list_unfinished(folder)):
        try:
            age_s = time.time() - unfinished.stat().st_mtime
        except FileNotFoundError:  # another process has finished it
            continue
        if age_s > _ABANDONED_S:
            shutil.rmtree(unfinished, ignore_errors=True)
