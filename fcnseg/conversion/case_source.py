"""The source of the cases of a command: a list or a folder, and the label map that goes with it.

One of the layouts of `fcnseg.conversion.case_lists` is chosen by the flags of the user.
"""

from __future__ import annotations

import dataclasses

from fcnseg.conversion.case_lists import (
    cases_of_dataset_json,
    cases_of_folders,
    cases_of_totalsegmentator,
    label_map_of_dataset_json,
    label_map_of_totalsegmentator,
    read_cases_csv,
)
from fcnseg.conversion.cases import CaseList
from fcnseg.errors import InputError
from fcnseg.storage import files
from fcnseg.volumes import LabelMap


@dataclasses.dataclass(frozen=True)
class CaseSource:
    """The place of the cases; exactly one of the layouts is given.

    Attributes:
        cases: Path of a CSV file.
        images: Path of a folder of images.
        labels: Path of a folder of labels with the names of the images.
        dataset: Path of a `dataset.json`.
        totalsegmentator: Path of a folder in TotalSegmentator's layout.
        classes: Masks of `totalsegmentator` that become classes; all if it is empty.
        label_map: Path of a label map; None to take the names from `dataset` or
            `totalsegmentator`.
        labelled: True if cases have labels.
    """

    cases: str | None = None
    images: str | None = None
    labels: str | None = None
    dataset: str | None = None
    totalsegmentator: str | None = None
    classes: tuple[str, ...] = ()
    label_map: str | None = None
    labelled: bool = True

    def __post_init__(self) -> None:
        sources = (self.cases, self.images or self.labels, self.dataset, self.totalsegmentator)
        if sum(source is not None for source in sources) != 1:
            raise InputError(
                "cases come from --cases, from --images and --labels, from --dataset or from "
                "--totalsegmentator, one of them"
            )
        if not self.labelled and self.labels is not None:
            raise InputError("--images_only and --labels exclude each other")
        if self.labelled and (self.images is None) != (self.labels is None):
            raise InputError("--images and --labels go together")
        if self.classes and (self.totalsegmentator is None or self.label_map is not None):
            raise InputError("--classes goes with --totalsegmentator, without --label_map")

    def read_label_map(self) -> LabelMap:
        """Reads the label map, or takes it from the names of the dataset.

        Raises:
            InputError: If the file, or the dataset, is missing or not of its form, or there is no
                label map and the layout has no names.
        """
        if self.label_map is None and self.dataset is None and self.totalsegmentator is None:
            raise InputError(
                "label_map must be a YAML file with the classes: only --dataset and"
                " --totalsegmentator have their names"
            )
        if self.label_map is not None:
            with files.local_copy(self.label_map) as path:
                return LabelMap.read(path)
        if self.dataset is not None:
            self._check_file("dataset", self.dataset, "a dataset.json")
            return label_map_of_dataset_json(self.dataset)
        return label_map_of_totalsegmentator(str(self.totalsegmentator), self.classes)

    def list_cases(self, label_map: LabelMap | None = None) -> CaseList:
        """Lists the cases.

        Args:
            label_map: The names and ids of a `dataset.json` must agree with it, if there are
                labels.

        Raises:
            InputError: If the source is missing, is not of its form, or names no case.
        """
        if self.cases is not None:
            self._check_file("cases", self.cases, "a CSV file")
            return read_cases_csv(self.cases, labelled=self.labelled)
        if self.dataset is not None:
            self._check_file("dataset", self.dataset, "a dataset.json")
            return cases_of_dataset_json(self.dataset, label_map, labelled=self.labelled)
        if self.totalsegmentator is not None:
            return cases_of_totalsegmentator(self.totalsegmentator, labelled=self.labelled)
        return cases_of_folders(str(self.images), self.labels)

    def _check_file(self, argument: str, path: str, kind: str) -> None:
        """Checks that the path of a list is no folder; a `dataset.json` in it is named."""
        if not files.is_folder(path):
            return
        inside = files.join(path, "dataset.json")
        hint = f": did you mean --dataset {inside}?" if files.exists(inside) else ""
        if not hint and argument == "cases":
            hint = ": --images and --labels are for folders"
        raise InputError(f"{argument} must be {kind}, got the folder {path}{hint}")
