"""The files of a dataset as local paths: the originals, or copies from an object store.

TensorFlow's wheels do not open s3://, and random access to records needs files that can be mapped
into memory. Copies are kept in a cache folder under the SHA-256 of the manifest, so that the next
run finds them, and another dataset under the same URL does not.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fcnseg.errors import DatasetError
from fcnseg.records.damage import Damage, check_files, find_wrong_content
from fcnseg.records.dataset_info import DatasetInfo, ShardInfo
from fcnseg.storage import files
from fcnseg.storage.file_systems import download
from fcnseg.storage.whole_file import atomic_write, make_folder

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "FCNSEG_CACHE"
"""Environment variable that names the cache folder; by default it is in the user's cache."""

_AT_ONCE = 4  # files copied at one time: of 128 MiB, a few fill a connection
_ABANDONED_S = 86400  # age of the remains of a killed copy


def cache_folder() -> Path:
    """The folder for copies: that of `FCNSEG_CACHE`, else fcnseg in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnseg"


@dataclasses.dataclass(frozen=True)
class LocalFiles:
    """Files of a dataset as local paths, copied on demand.

    Attributes:
        source: Folder of the dataset, on any file system.
        info: Its manifest.
        digest: SHA-256 of the manifest.
    """

    source: str
    info: DatasetInfo
    digest: str

    @property
    def is_copy(self) -> bool:
        """Tells whether the files on this machine are copies."""
        return not files.is_local(self.source)

    @property
    def folder(self) -> Path:
        """Folder of the local files, which is `source` itself if that is local."""
        return cache_folder() / "records" / self.digest if self.is_copy else Path(self.source)

    def paths(self, splits: Sequence[str]) -> list[Path]:
        """Local paths of the files of some splits, each checked to exist with the right size.

        Args:
            splits: Some of `SPLITS`.

        Raises:
            DatasetError: If a file is missing, or differs from the manifest.
            InputError: If the cache folder cannot be created or written to.
            OutputError: If the cache folder is full.
        """
        shards = [shard for split in splits for shard in self.info.splits[split].shards]
        if self.is_copy:
            self._fetch(shards)
        else:
            check_files(self.source, self.info, splits)
        return [self.folder / shard.name for shard in shards]

    def path(self, shard: ShardInfo) -> Path:
        """Local path of one file of records; like `paths`, but a local file is not checked."""
        if self.is_copy:
            self._fetch([shard])
        return self.folder / shard.name

    def _fetch(self, shards: Sequence[ShardInfo]) -> None:
        """Copies those of some files that are not in the cache yet."""
        missing = [shard for shard in shards if files.size(self.folder / shard.name) != shard.bytes]
        if not missing:
            return
        make_folder(self.folder, argument=CACHE_VARIABLE)
        _delete_abandoned(self.folder)
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


def _delete_abandoned(folder: Path) -> None:
    for unfinished in map(Path, files.list_unfinished(folder)):
        try:
            age_s = time.time() - unfinished.stat().st_mtime
        except FileNotFoundError:  # another process has finished it
            continue
        if age_s > _ABANDONED_S:
            shutil.rmtree(unfinished, ignore_errors=True)
