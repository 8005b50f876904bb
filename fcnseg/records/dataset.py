"""A finished dataset, opened once and then passed on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence

from fcnseg.errors import DatasetError
from fcnseg.records.damage import Damage, find_damage
from fcnseg.records.dataset_info import SPLITS, DatasetInfo, read_manifest
from fcnseg.records.listing import ListedCase, list_cases
from fcnseg.records.local_files import LocalFiles


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A folder of records with its manifest, both as they were when it was opened.

    Attributes:
        folder: The folder, on any file system.
        info: The manifest.
        digest: SHA-256 of the manifest, which contains the checksum of every file.
    """

    folder: str
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
        manifest, info = read_manifest(folder)
        return cls(os.fspath(folder), info, hashlib.sha256(manifest).hexdigest())

    @classmethod
    def open_named(
        cls, folder: str, *, by: str | os.PathLike[str], now: str | None = None
    ) -> Dataset:
        """Reads the dataset that a run names, by the path that its training was given.

        Args:
            folder: That path; it may be relative to where the training began.
            by: The run.
            now: Its place now; by default that path.

        Raises:
            DatasetError: If it cannot be read; unless its place is given, the message asks for it.
        """
        if now is not None:
            return cls.open(now)
        try:
            return cls.open(folder)
        except DatasetError as error:
            raise DatasetError(f"data must name the records of {by} now: {error}") from error

    @property
    def local(self) -> LocalFiles:
        """Access to the files as local paths."""
        return LocalFiles(self.folder, self.info, self.digest)

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the classes but the background; none if the cases have no labels."""
        return self.info.class_names[1:] if self.info.labelled else ()

    def paths(self, splits: Sequence[str]) -> tuple[str, ...]:
        """Local paths of the files of some splits, each checked to exist with the right size.

        Those of an object store are copied, unless an earlier call or run has done so.

        Args:
            splits: Some of `SPLITS`.

        Raises:
            DatasetError: If one is missing, or has another size than in the manifest.
        """
        return tuple(str(path) for path in self.local.paths(splits))

    def list_cases(self, splits: Sequence[str]) -> dict[str, tuple[ListedCase, ...]]:
        """Lists the cases of each file of some splits, in order; a file is read once.

        Raises:
            DatasetError: If a file is missing or broken.
        """
        paths = self.paths(splits)
        for path in paths:
            if path not in self._listed:
                self._listed[path] = tuple(list_cases(path))
        return {path: self._listed[path] for path in paths}

    def find_damage(self) -> Iterator[Damage]:
        """Reads all files and yields the damage found; see `records.damage.find_damage`.

        For an object store, the local copies are read.
        """
        if self.local.is_copy:
            self.local.paths(SPLITS)
        return find_damage(self.local.folder, self.info)
