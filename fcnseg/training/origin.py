"""What a run learns from, and how it is known again."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from fcnseg.records import Dataset
from fcnseg.runs.run_folder import RunManifest
from fcnseg.sampling import Fold
from fcnseg.sampling.shards import deal_cases


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run learns from.

    Attributes:
        dataset: A finished one.
        init_from: Folder of the run whose weights are where this one starts; None if they are
            drawn.
        fold: Which cases train and which validate; None leaves them as converted.
    """

    dataset: Dataset
    init_from: Path | None = None
    fold: Fold | None = None

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        *,
        init_from: str | os.PathLike[str] | None = None,
        fold: Fold | None = None,
    ) -> Origin:
        """With a path made absolute where it is to be known again."""
        return cls(dataset, None if init_from is None else Path(init_from).absolute(), fold)

    def identity(self) -> dict[str, Any]:
        """What must be the same when the run goes on, by name."""
        return _identity(self.dataset.digest, self.init_from, self.fold)

    def validation_cases(self) -> tuple[str, ...]:
        """The ids of the cases that validate, sorted."""
        if self.fold is None:
            return self.dataset.info.splits["validation"].case_ids
        dealt = deal_cases(self.dataset, self.fold).values()
        cases = (pair for of_file in dealt for pair in of_file)
        return tuple(sorted(case.case_id for case, split in cases if split == "validation"))


def identity_of(manifest: RunManifest) -> dict[str, Any]:
    """The `Origin.identity` of a finished run."""
    fold = Fold.of(manifest.fold, manifest.folds)
    return _identity(manifest.data_fingerprint, manifest.init_from, fold)


def _identity(digest: str, init_from: object, fold: Fold | None) -> dict[str, Any]:
    return {
        "data": digest,
        "init_from": None if init_from is None else str(init_from),
        "fold": None if fold is None else str(fold),
    }
