"""A finished dataset, opened once and then passed on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcnseg.records.damage import Damage, check_files, find_damage
from fcnseg.records.dataset_info import DatasetInfo, read_manifest
from fcnseg.records.listing import ListedCase, list_cases


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A folder of records with its manifest, both as they were when it was opened.

    Attributes:
        folder: The folder.
        info: The manifest.
        digest: SHA-256 of the manifest, which holds the checksum of every file.
    """

    folder: Path
    info: DatasetInfo
    digest: str
    _listed: dict[str, tuple[ListedCase, ...]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Dataset:
        """Reads the manifest of a finished dataset.

        Raises:
            DatasetError: If the folder is missing, unfinished, or of another schema.
        """
        text, info = read_manifest(folder)
        return cls(Path(folder), info, hashlib.sha256(text).hexdigest())

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the classes but the background; none where the cases have no labels."""
        return self.info.class_names[1:] if self.info.labelled else ()

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of the records."""
        return math.prod(self.info.spacing_mm) / 1000

    def paths(self, splits: Sequence[str]) -> tuple[str, ...]:
        """The files of some splits, each there and of its size.

        Args:
            splits: Some of `SPLITS`.

        Raises:
            DatasetError: If one is missing, or of another size than the manifest has.
        """
        check_files(self.folder, self.info, splits)
        shards = [shard for split in splits for shard in self.info.splits[split].shards]
        return tuple(str(self.folder / shard.name) for shard in shards)

    def list_cases(self, splits: Sequence[str]) -> dict[str, tuple[ListedCase, ...]]:
        """The cases of each file of some splits, in their order; a file is read once.

        Raises:
            DatasetError: If a file is missing or broken.
        """
        paths = self.paths(splits)
        for path in paths:
            if path not in self._listed:
                self._listed[path] = tuple(list_cases(path))
        return {path: self._listed[path] for path in paths}

    def find_damage(self) -> Iterator[Damage]:
        """Reads all files and yields what is wrong with them, as `records.damage.find_damage`."""
        return find_damage(self.folder, self.info)
