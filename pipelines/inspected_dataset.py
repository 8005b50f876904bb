"""A converted dataset as its files describe it: manifest, rejects, and cases of its records."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence, Set

import numpy as np

from fcnseg.conversion.rejects import Reject
from fcnseg.errors import DatasetError, InputError, format_names
from fcnseg.records import (
    REJECTS_FILE,
    SPLITS,
    Dataset,
    Record,
    read_cases,
)
from fcnseg.records.damage import check_files
from fcnseg.records.fingerprint import Fingerprint
from fcnseg.storage import files
from fcnseg.volumes import voxel_ml


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectedDataset(Dataset):
    """A finished dataset with what people look at.

    Attributes:
        fingerprint: Statistics of the data.
        rejects: Cases that were not converted.
    """

    fingerprint: Fingerprint
    rejects: tuple[Reject, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> InspectedDataset:
        """Reads everything but the records.

        Raises:
            DatasetError: If the folder is not a finished dataset, has no statistics, or lacks a
                file.
        """
        dataset = Dataset.open(folder)
        folder, info = dataset.folder, dataset.info
        if info.fingerprint is None:
            raise DatasetError(f"{folder} has no fingerprint: convert the cases again")
        check_files(folder, info, SPLITS)
        try:
            lines = files.read_text(files.join(folder, REJECTS_FILE)).splitlines()
            rejects = tuple(map(Reject.from_json, lines))
        except (OSError, TypeError, ValueError) as error:
            raise DatasetError(
                f"not a list of rejects: {files.join(folder, REJECTS_FILE)}: {error}"
            ) from error
        return cls(
            folder=folder,
            info=info,
            digest=dataset.digest,
            fingerprint=info.fingerprint,
            rejects=rejects,
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of the records."""
        return voxel_ml(self.info.spacing_mm)

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return files.name_of(files.absolute(self.folder))

    def read_spread(self, count: int) -> Iterator[Record]:
        """Yields some cases from evenly spaced places in all files; all if there are fewer."""
        shards = [shard for split in self.info.splits.values() for shard in split.shards]
        total = sum(shard.cases for shard in shards)
        places = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
        first = 0
        for shard in shards:
            here = [place - first for place in places if first <= place < first + shard.cases]
            first += shard.cases
            if here:
                cases = itertools.islice(read_cases(self.local.path(shard)), here[-1] + 1)
                yield from (case for place, case in enumerate(cases) if place in here)

    def read_named(self, case_ids: Sequence[str]) -> Iterator[Record]:
        """Gives cases by their ids, read from the files of their splits until all are found.

        Raises:
            InputError: If a case is not in the dataset.
        """
        known = {case.case_id for case in self.fingerprint.cases}
        if unknown := sorted(set(case_ids) - known):
            raise InputError(f"cases must be in {self.folder}, got {format_names(unknown)}")
        return self._read_named(frozenset(case_ids))

    def _read_named(self, case_ids: Set[str]) -> Iterator[Record]:
        for split in self.info.splits.values():
            missing = set(split.case_ids) & case_ids
            for shard in split.shards:
                if not missing:
                    break
                for case in read_cases(self.local.path(shard)):
                    if case.case_id in missing:
                        missing.remove(case.case_id)
                        yield case
