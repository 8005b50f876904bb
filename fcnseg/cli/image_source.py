"""The source of the images to segment: a folder, a layout of the conversion, or records."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from fcnseg.cli.command import Location
from fcnseg.conversion.case_lists.volumes import list_images
from fcnseg.conversion.case_source import CaseSource
from fcnseg.conversion.cases import Case, CaseList
from fcnseg.conversion.dataset_cases import check_files_there, select_cases
from fcnseg.errors import InputError
from fcnseg.records import Dataset, Fold

_SOURCES = ("images", "data", "cases", "dataset", "totalsegmentator")


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """The place of the images; exactly one is given.

    Attributes:
        images: A volume, a folder of DICOM slices, or a folder of either.
        data: Folder of records, whose cases are read from their original files.
        cases: Path of a CSV file, as in `CaseSource`.
        dataset: Path of a `dataset.json`.
        totalsegmentator: Path of a folder in TotalSegmentator's layout.
        split: Split of `data`.
        fold: Fold of `data`.
        folds: Number of its folds.
    """

    images: Location | None = None
    data: Location | None = None
    cases: Location | None = None
    dataset: Location | None = None
    totalsegmentator: Location | None = None
    split: str | None = None
    fold: int | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(f"--{name}" for name in _SOURCES)
            raise InputError(
                f"images come from one of {known}, got {' and '.join(given) or 'none'}"
            )
        for name in ("split", "fold", "folds"):
            if self.data is None and getattr(self, name) is not None:
                raise InputError(f"--{name} goes with --data, got {given[0]}")

    @classmethod
    def of(cls, command: Any) -> ImageSource:
        """Takes the flags of a command, which has one for each attribute.

        Raises:
            InputError: If they do not go together.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: getattr(command, name) for name in names})

    def open_dataset(self) -> Dataset | None:
        """Opens the records; None for another source.

        Raises:
            DatasetError: If the folder is no finished dataset.
        """
        return None if self.data is None else Dataset.open(self.data)

    def list_cases(self, dataset: Dataset | None) -> CaseList:
        """Lists the cases, without labels.

        Args:
            dataset: What `open_dataset` returned.

        Raises:
            InputError: If the source is missing, is not of its form, or names no case, or a case
                of the dataset is not where it was.
        """
        if dataset is not None:
            fold = Fold.of(self.fold, self.folds)
            selected = select_cases(dataset, split=self.split, fold=fold)
            check_files_there(selected, what="image", source=dataset.folder)
            return CaseList(selected)
        if self.images is not None:
            images = list_images(self.images)
            return CaseList(tuple(Case(name, path, None, name) for name, path in images.items()))
        return CaseSource(
            cases=_text(self.cases),
            dataset=_text(self.dataset),
            totalsegmentator=_text(self.totalsegmentator),
            labelled=False,
        ).list_cases()


def _text(path: Location | None) -> str | None:
    return None if path is None else os.fspath(path)
