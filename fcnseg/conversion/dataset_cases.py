"""The cases of a dataset with the files that they were converted from."""

from __future__ import annotations

from collections.abc import Iterable

from fcnseg.conversion.case_lists import cases_to_csv, read_cases_csv
from fcnseg.conversion.cases import Case, changed_since
from fcnseg.errors import DatasetError, InputError, format_names
from fcnseg.records import CASE_FILES_FILE, COMPLETED_FILE, SPLITS, Dataset, DatasetInfo, Fold
from fcnseg.records.folds import DEALT
from fcnseg.records.small_splits import way_out
from fcnseg.storage import files
from fcnseg.storage.whole_file import write_whole


def note_case_files(folder: str, cases: Iterable[Case]) -> None:
    """Writes the files of a conversion's cases next to its records, atomically.

    Args:
        folder: Folder of the records, which exists.
        cases: All cases listed, each with its split, also those that are going to be rejected.
    """
    write_whole(files.join(folder, CASE_FILES_FILE), cases_to_csv(cases))


def add_case_files(folder: str, cases: Iterable[Case]) -> bool:
    """Writes the files of the cases of a finished dataset, unless they are there.

    Args:
        folder: Folder of the records.
        cases: The cases of the job that made them.

    Returns:
        True if the file was written.

    Raises:
        DatasetError: If a case of the dataset is not among them.
    """
    if files.exists(files.join(folder, CASE_FILES_FILE)):
        return False
    listed = list(cases)
    _check_all_listed(Dataset.open(folder), {case.case_id for case in listed}, source="the list")
    note_case_files(folder, listed)
    return True


def check_unchanged(folder: str, cases: Iterable[Case]) -> None:
    """Checks that no file of a converted case was modified since; object stores are not asked.

    Args:
        folder: Folder of the records of a finished dataset.
        cases: The cases of the job that made them; one that was rejected may have been repaired.

    Raises:
        DatasetError: If one was; the message names the first.
    """
    converted = set(_converted(Dataset.open(folder).info))
    marker = files.join(folder, COMPLETED_FILE)
    changed = changed_since(marker, (case for case in cases if case.case_id in converted))
    if changed:
        others = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
        raise DatasetError(
            f"files of cases must not be newer than the finished dataset in {folder}, got"
            f" {changed[0]}{others}: name another output, or give --overwrite to convert all cases"
            " again"
        )


def read_case_files(dataset: Dataset) -> dict[str, Case]:
    """Reads the cases of a dataset with their original files, by case id.

    Raises:
        DatasetError: If the dataset is of a version that did not note them, or its list is damaged.
    """
    path = files.join(dataset.folder, CASE_FILES_FILE)
    if not files.exists(path):
        raise DatasetError(
            f"{dataset.folder} has no {CASE_FILES_FILE}, as it was converted by an earlier version:"
            " the same fcnseg convert command, given again, adds it and converts nothing"
        )
    listed = read_cases_csv(path, labelled=dataset.info.labelled)
    if listed.rejects:
        raise DatasetError(f"{path} must list each case once: {listed.rejects[0]}")
    cases = {case.case_id: case for case in listed.cases}
    _check_all_listed(dataset, cases.keys(), source=path)
    return {case_id: cases[case_id] for case_id in _converted(dataset.info)}


def select_cases(
    dataset: Dataset, *, split: str | None = None, fold: Fold | None = None
) -> tuple[Case, ...]:
    """Selects the cases of a split of a dataset, with their original files.

    Args:
        dataset: A finished dataset.
        split: One of `SPLITS`; with a fold, validation by default: the cases that a training on the
            fold does not see.
        fold: Fold that reassigns the cases for training and for validation, as in training.

    Returns:
        The cases by their ids.

    Raises:
        InputError: If neither split nor fold is given, or the split is unknown.
        DatasetError: If the split has no cases, there are fewer patients than folds, or the dataset
            does not tell its files.
    """
    split = split or ("validation" if fold is not None else None)
    if split not in SPLITS:
        given = "none" if split is None else split
        raise InputError(
            f"--data needs --split {', '.join(SPLITS)}, or --fold and --folds, got {given}"
        )
    cases = read_case_files(dataset)
    ids = list(dataset.info.splits[split].case_ids)
    if fold is not None and split in DEALT:
        patients = {
            case_id: cases[case_id].patient_id
            for name in DEALT
            for case_id in dataset.info.splits[name].case_ids
        }
        dealt = fold.deal(patients, seed=dataset.info.seed)
        ids = sorted(case_id for case_id, is_in in dealt.items() if is_in == split)
    if not ids:
        raise DatasetError(
            f"the {split} split of {dataset.folder} has no cases: {way_out(dataset.info, split)}"
        )
    return tuple(cases[case_id] for case_id in ids)


def check_files_there(cases: Iterable[Case], *, what: str, source: str) -> None:
    """Checks that the original files of cases are where they were.

    Args:
        cases: The cases.
        what: `image` or `label`.
        source: The dataset's folder.

    Raises:
        DatasetError: If one is not there; the message names the case, and how many others.
    """
    missing = [
        (case.case_id, path)
        for case in cases
        if (path := getattr(case, what)) is not None and not _is_there(path)
    ]
    if missing:
        case_id, path = missing[0]
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DatasetError(
            f"no such file: {path}, the {what} of a case{others}: move it back, or correct its path"
            f" in {files.join(source, CASE_FILES_FILE)} (case {case_id})"
        )


def _is_there(path: str) -> bool:
    return files.exists(path) or files.is_folder(path)


def _converted(info: DatasetInfo) -> list[str]:
    return sorted(case_id for split in info.splits.values() for case_id in split.case_ids)


def _check_all_listed(dataset: Dataset, listed: Iterable[str], *, source: str) -> None:
    lacking = sorted({*_converted(dataset.info)}.difference(listed))
    if lacking:
        raise DatasetError(
            f"{source} must list all cases of {dataset.folder}, it lacks {format_names(lacking)}"
        )
