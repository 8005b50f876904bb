"""Damage to the files of a dataset: the file, the reason, and the cases lost."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c

from fcnseg.errors import DatasetError, format_names
from fcnseg.records.dataset_info import INFO_FILE, DatasetInfo, ShardInfo
from fcnseg.records.reading import case_id_of
from fcnseg.records.tfrecord import scan_frames
from fcnseg.storage import files

_PIECE = 2**20  # bytes read at once
_MOST_NAMES = 10  # cases in one message
_WRONG_CHECKSUM = f"its checksum is not that in {INFO_FILE}"


@dataclasses.dataclass(frozen=True)
class Damage:
    """Damage to a file.

    Attributes:
        path: The file, on any file system.
        reason: One line for people.
        cases: Ids of the cases that cannot be read; empty if unknown.
    """

    path: str
    reason: str
    cases: tuple[str, ...]

    def __str__(self) -> str:
        cases = f" (case {format_names(self.cases, most=_MOST_NAMES)})" if self.cases else ""
        return f"{self.path} is broken: {self.reason}{cases}; copy or convert the dataset again"


def check_files(
    directory: str | os.PathLike[str], info: DatasetInfo, splits: Sequence[str]
) -> None:
    """Checks that the files of some splits exist with the right size; the contents are not read.

    Args:
        directory: Folder of a finished dataset, on any file system.
        info: Its manifest.
        splits: Some of `SPLITS`.

    Raises:
        DatasetError: If one is missing, or has another size than in the manifest.
    """
    listed = None if files.is_local(directory) else files.list_sizes(directory)  # one request
    for shard in (shard for split in splits for shard in info.splits[split].shards):
        path = files.join(directory, shard.name)
        size = files.size(path) if listed is None else listed.get(path)
        if size is None:
            raise DatasetError(f"a file of the dataset is missing: {path}")
        if (problem := _wrong_size(size, shard)) is not None:
            raise DatasetError(str(Damage(path, problem, ())))


def find_wrong_content(path: Path, shard: ShardInfo) -> str | None:
    """Finds a difference between a local file and its entry in the manifest: size or checksum.

    Args:
        path: The file.
        shard: Its entry.

    Returns:
        One line for people; None if nothing differs.
    """
    if (problem := _wrong_size(path.stat().st_size, shard)) is not None:
        return problem
    return None if _crc32c(path) == shard.crc32c else _WRONG_CHECKSUM


def find_damage(directory: str | os.PathLike[str], info: DatasetInfo) -> Iterator[Damage]:
    """Reads all files of a dataset and yields the damage found.

    Memory holds one record, and the local disk one file of an object store.

    Args:
        directory: Folder of a finished dataset, on any file system.
        info: Its manifest, with the checksum of each file.

    Yields:
        An entry for each broken file. Cases missing from it, as in one that is truncated or of
        another dataset, are those of its split that no intact file has; if several files of a split
        are in that state, they are named for each.
    """
    for split in info.splits.values():
        contents = [
            _Content.of(files.join(directory, shard.name), shard, known=split.case_ids)
            for shard in split.shards
        ]
        lost = set(split.case_ids).difference(*(content.sound for content in contents))
        for content in contents:
            if content.problem is not None:
                cases = lost if content.lacks_cases else content.broken
                yield Damage(content.path, content.problem, tuple(sorted(cases)))


@dataclasses.dataclass(frozen=True)
class _Content:
    """Result of reading a complete file.

    Attributes:
        path: The file.
        problem: Reason why it is damaged; None if it is intact.
        sound: Ids of the cases whose records are intact.
        broken: Ids of those with a damaged record.
        lacks_cases: True if other cases are missing from it.
    """

    path: str
    problem: str | None
    sound: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    lacks_cases: bool = True

    @classmethod
    def of(cls, path: str, shard: ShardInfo, *, known: Sequence[str]) -> _Content:
        """Reads a file.

        Args:
            path: The file, on any file system.
            shard: Its entry in the manifest.
            known: Ids of the cases of its split: a damaged record may name any.
        """
        if not files.exists(path):
            return cls(path, "it is missing")
        with files.local_copy(path) as copy:
            return cls._read(path, copy, shard, known)

    @classmethod
    def _read(cls, path: str, copy: Path, shard: ShardInfo, known: Sequence[str]) -> _Content:
        try:
            frames = [(case_id_of(frame.data), frame.problem) for frame in scan_frames(copy)]
            differs = find_wrong_content(copy, shard)
        except OSError as error:
            return cls(path, f"it cannot be read: {error.strerror}")
        problems = [problem for _, problem in frames if problem is not None]
        if not problems and differs is not None:
            return cls(path, differs)
        named = [(name, problem) for name, problem in frames if name is not None and name in known]
        broken = {name for name, problem in named if problem}
        sound = {name for name, problem in named if not problem}
        return cls(
            path,
            problems[0].removesuffix(",") if problems else None,
            frozenset(sound - broken),
            frozenset(broken),
            lacks_cases=len(sound | broken) < shard.cases,
        )


def _wrong_size(size: int, shard: ShardInfo) -> str | None:
    if size == shard.bytes:
        return None
    return f"it has {size} bytes, and {INFO_FILE} says {shard.bytes}"


def _crc32c(path: Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            crc = google_crc32c.extend(crc, piece)
    return f"{crc:08x}"
