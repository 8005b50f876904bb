"""The data and initial weights of a run, and their identity."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from fcnseg.records import Dataset, Fold
from fcnseg.runs.run_folder import RunManifest
from fcnseg.sampling.shards import deal_cases


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The data and initial weights of a run.

    Attributes:
        dataset: A finished dataset.
        init_from: Folder of the run whose weights initialise this one; None for random initial
            weights.
        fold: Division into training and validation cases; None leaves them as converted.
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
    ) -> Provenance:
        """Records the provenance, with its path made absolute for later comparison."""
        return cls(dataset, None if init_from is None else Path(init_from).absolute(), fold)

    def identity(self) -> dict[str, Any]:
        """The settings that must be the same when the run is resumed, by name."""
        return _identity(self.dataset.digest, self.init_from, self.fold)

    def validation_cases(self) -> tuple[str, ...]:
        """The ids of the validation cases, sorted."""
        if self.fold is None:
            return self.dataset.info.splits["validation"].case_ids
        dealt = deal_cases(self.dataset, self.fold).values()
        cases = (pair for of_file in dealt for pair in of_file)
        return tuple(sorted(case.case_id for case, split in cases if split == "validation"))


def identity_of(manifest: RunManifest) -> dict[str, Any]:
    """Gives the `Provenance.identity` of a finished run."""
    fold = Fold.of(manifest.fold, manifest.folds)
    return _identity(manifest.data_digest, manifest.init_from, fold)


def _identity(digest: str, init_from: object, fold: Fold | None) -> dict[str, Any]:
    return {
        "data": digest,
        "init_from": None if init_from is None else str(init_from),
        "fold": None if fold is None else str(fold),
    }
