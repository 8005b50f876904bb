"""The cases of a dataset that a run has not trained on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from fcnseg.errors import InputError, format_names
from fcnseg.records import Dataset
from fcnseg.records.folds import DEALT
from fcnseg.runs import Run

logger = logging.getLogger(__name__)


def warn_of_seen_cases(runs: Sequence[Run], dataset: Dataset, case_ids: Collection[str]) -> None:
    """Warns if runs have trained on some of the cases: their scores say little of new patients.

    Args:
        runs: Finished runs; of one on another dataset nothing is known.
        dataset: The dataset of the cases.
        case_ids: Ids of the cases.
    """
    for run in runs:
        manifest = run.manifest
        if manifest.data_digest != dataset.digest or not manifest.validation_cases:
            continue
        trained = set(_dealt(dataset)) - {*manifest.validation_cases}
        seen = sorted(trained.intersection(case_ids))
        if seen:
            logger.warning(
                f"{run.folder} has trained on {len(seen)} of the {len(case_ids)} cases:"
                f" {format_names(seen)}"
            )


def open_dataset_of(runs: Sequence[Run], data: str | None) -> Dataset:
    """Opens the dataset that all runs were trained on.

    Args:
        runs: One or more runs.
        data: Its folder; by default the one that the first run names.

    Raises:
        InputError: If they were trained on different datasets, or on another one than `data`.
        DatasetError: If the folder is no finished dataset.
    """
    first, *others = runs
    for other in others:
        if other.manifest.data_digest != first.manifest.data_digest:
            raise InputError(
                f"run_dirs must be of the same records, got {first.folder} of"
                f" {first.manifest.data} and {other.folder} of {other.manifest.data}, which differ"
            )
    dataset = Dataset.open_named(first.manifest.data, by=first.folder, now=data)
    if dataset.digest != first.manifest.data_digest:
        raise InputError(
            f"run_dirs must be of the records in {dataset.folder}, but {first.folder} was trained"
            " on other ones: --data names the folder where they are now"
        )
    return dataset


def runs_by_unseen_case(runs: Sequence[Run], dataset: Dataset) -> dict[str, Run]:
    """Assigns each case for training or validation to the run that did not train on it.

    Args:
        runs: All folds of a cross-validation.
        dataset: Their dataset.

    Returns:
        The run by case id, sorted.

    Raises:
        InputError: If a case is in no fold or in two; the folds are named.
    """
    found: dict[str, Run] = {}
    for run in runs:
        for case_id in run.manifest.validation_cases:
            other = found.setdefault(case_id, run)
            if other is not run:
                raise InputError(
                    f"folds must not overlap, got {other.folder} ({_fold(other)}) and"
                    f" {run.folder} ({_fold(run)}), which both leave out case {case_id}"
                )
    lacking = sorted(set(_dealt(dataset)) - found.keys())
    if lacking:
        given = ", ".join(f"{run.folder} ({_fold(run)})" for run in runs)
        raise InputError(
            f"run_dirs must be all folds of a cross-validation, got {given}, of which none leaves"
            f" out {format_names(lacking)}"
        )
    return dict(sorted(found.items()))


def _dealt(dataset: Dataset) -> list[str]:
    """Ids of the cases that folds divide."""
    return [case_id for name in DEALT for case_id in dataset.info.splits[name].case_ids]


def _fold(run: Run) -> str:
    fold, folds = run.manifest.fold, run.manifest.folds
    return "no fold" if fold is None else f"fold {fold} of {folds}"
