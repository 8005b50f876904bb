"""The cases of an evaluation: masks with their references, in folders or as records name them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcnseg.cli.command import Location
from fcnseg.cli.unseen import open_dataset_of, runs_by_unseen_case
from fcnseg.conversion.cases import Case
from fcnseg.conversion.dataset_cases import check_files_there, read_case_files, select_cases
from fcnseg.errors import InputError
from fcnseg.evaluation import CaseFiles, pair_files, pair_masks
from fcnseg.records import Dataset, Fold
from fcnseg.runs import Run
from fcnseg.storage import files
from fcnseg.storage.files import local_copy
from fcnseg.volumes import LabelMap

MASKS = "masks"
"""Folder of a run with its masks, where a cross-validation looks for them."""

_OF_FOLDERS = ("labels", "label_map", "images")
_OF_SPLITS = ("split", "fold", "folds")


@dataclasses.dataclass(frozen=True)
class MaskSource:
    """The place of masks and references: folders, a split of records, or folds of runs.

    Attributes:
        masks: Folder of the masks; not for folds, whose masks lie in the folders of their runs.
        labels: Folder of the labels.
        label_map: Path of the label map of these labels.
        images: Folder of the CT volumes of these labels, if they are to be drawn.
        data: Folder of records, whose labels and images are read from their original files.
        split: Split of `data`.
        fold: Fold of `data`.
        folds: Number of its folds.
        run_dirs: Folders of the runs of a cross-validation.
    """

    masks: Location | None = None
    labels: Location | None = None
    label_map: Location | None = None
    images: Location | None = None
    data: Location | None = None
    split: str | None = None
    fold: int | None = None
    folds: int | None = None
    run_dirs: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.run_dirs:
            self._refuse(("masks", *_OF_FOLDERS, *_OF_SPLITS), beside="run_dirs")
        elif self.data is not None:
            self._require(("masks",), beside="data")
            self._refuse(_OF_FOLDERS, beside="data")
        else:
            self._require(("masks", "labels", "label_map"), beside=None)
            for name in _OF_SPLITS:
                if getattr(self, name) is not None:
                    raise InputError(f"--{name} goes with --data, which is not given")

    @property
    def selection(self) -> str:
        """The cases in words, without names of folders; empty if they are those of a folder."""
        if self.run_dirs:
            return f"cross-validation of {len(self.run_dirs)} folds"
        fold = Fold.of(self.fold, self.folds)
        if self.data is None:
            return ""
        of_fold = "" if fold is None else f" of fold {fold}"
        return f"{self.split or 'validation'} split{of_fold}"

    def open(self) -> tuple[list[CaseFiles], LabelMap]:
        """Finds the files of the cases, and the label map of their labels.

        Raises:
            InputError: If a folder or file is missing, a split is empty, the runs are no
                cross-validation, or a mask is not by the run that has not seen its case.
        """
        if self.run_dirs:
            return self._of_runs([Run.open(folder) for folder in self.run_dirs])
        if self.data is not None:
            dataset = Dataset.open(self.data)
            fold = Fold.of(self.fold, self.folds)
            cases = select_cases(dataset, split=self.split, fold=fold)
            _check_there(cases, dataset)
            return pair_masks(str(self.masks), cases), _label_map(dataset)
        with local_copy(str(self.label_map)) as path:
            label_map = LabelMap.read(path)
        return pair_files(str(self.masks), str(self.labels), self.images), label_map

    def _of_runs(self, runs: Sequence[Run]) -> tuple[list[CaseFiles], LabelMap]:
        dataset = open_dataset_of(runs, None if self.data is None else str(self.data))
        run_of = runs_by_unseen_case(runs, dataset)
        cases = read_case_files(dataset)
        _check_there([cases[case_id] for case_id in run_of], dataset)
        found: list[CaseFiles] = []
        for run in runs:
            of_run = [cases[case_id] for case_id, by in run_of.items() if by is run]
            pairs = pair_masks(run.folder / MASKS, of_run)
            _check_made_by(run, pairs)
            found += pairs
        return sorted(found, key=lambda pair: pair.case_id), _label_map(dataset)

    def _refuse(self, names: Sequence[str], *, beside: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"--{name} does not go with --{beside}, which tells it")

    def _require(self, names: Sequence[str], *, beside: str | None) -> None:
        for name in names:
            if getattr(self, name) is None:
                other = f" beside --{beside}" if beside else ", or --data or --run_dirs instead"
                raise InputError(f"--{name} must be given{other}")


def _check_there(cases: Sequence[Case], dataset: Dataset) -> None:
    if not dataset.info.labelled:
        raise InputError(f"an evaluation needs labels, and the cases of {dataset.folder} have none")
    for what in ("label", "image"):
        check_files_there(cases, what=what, source=dataset.folder)


def _label_map(dataset: Dataset) -> LabelMap:
    return LabelMap.from_mapping(dataset.info.label_map)


def _check_made_by(run: Run, pairs: Sequence[CaseFiles]) -> None:
    """Checks that masks are by the network of a run alone.

    Raises:
        InputError: If one is not, or does not tell.
    """
    network = run.network_digest()
    for pair in pairs:
        if pair.wrong is None and _networks_of(str(pair.mask), pair.case_id) != [network]:
            manifest = run.manifest
            raise InputError(
                f"masks must be by the network of {run.folder}, which has not seen their cases, got"
                f" another: predict with --run_dir {run.folder} --data {manifest.data} --fold"
                f" {manifest.fold} --folds {manifest.folds} --output {run.folder / MASKS}"
                f" (case {pair.case_id})"
            )


def _networks_of(mask: str, case_id: str) -> object:
    """The digests of the networks of a mask, as the file next to it tells them; None if none."""
    path = files.join(files.parent(mask), f"{case_id}.json")
    try:
        content = json.loads(files.read_text(path))
    except (InputError, ValueError):
        return None
    made_with = content.get("made_with") if isinstance(content, dict) else None
    return made_with.get("networks_sha256") if isinstance(made_with, Mapping) else None
