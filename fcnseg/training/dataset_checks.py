"""The dataset of a run, and the organs that can be learnt from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fcnseg.errors import DatasetError
from fcnseg.records import Dataset, Fold
from fcnseg.records.small_splits import find_small_splits, way_out
from fcnseg.sampling.shards import deal_cases
from fcnseg.training.lost_organs import TrainingOrgan, check_organs, count_organs

logger = logging.getLogger(__name__)


def check_dataset(
    dataset: Dataset, *, fold: Fold | None = None, ignore_label: int | None = None
) -> None:
    """Checks that a dataset can be trained and validated on.

    Args:
        dataset: A finished dataset.
        fold: Fold that reassigns the cases for training and for validation.
        ignore_label: Class index of voxels to ignore, which is no organ here.

    Raises:
        DatasetError: If the training or validation cases are none or have no organ, or there are
            fewer patients than folds.
    """
    if fold is None:
        _check_splits(dataset, ignore_label)
    else:
        _check_fold(dataset, fold, ignore_label)


def check_each_organ(
    dataset: Dataset, *, fold: Fold | None = None, ignore_label: int | None = None
) -> None:
    """Checks that each organ is in training cases; warns of few, or none for validation.

    Args:
        dataset: A finished dataset.
        fold: Fold that reassigns the cases for training and for validation.
        ignore_label: Class index of voxels to ignore, which need not occur.

    Raises:
        DatasetError: If an organ has no voxel in the training cases.
    """
    voxels_of = _class_voxels(dataset, ("train", "validation"), fold=fold)
    organs = count_organs(dataset.info.class_names, voxels_of["train"])
    counted = [organ for k, organ in enumerate(organs, start=1) if k != ignore_label]
    of_fold = "" if fold is None else f" of fold {fold}"
    check_organs(counted, source=f"the training cases{of_fold} of {dataset.folder}")
    unseen = [
        name
        for k, name in enumerate(dataset.info.class_names)
        if k not in (0, ignore_label) and not any(voxels[k] for voxels in voxels_of["validation"])
    ]
    if unseen:
        logger.warning(
            f"organs in no validation case{of_fold}, so no validation tells whether they are lost:"
            f" {', '.join(unseen)}"
        )


def _check_splits(dataset: Dataset, ignore_label: int | None) -> None:
    for split in ("train", "validation"):
        content = dataset.info.splits[split]
        if not content.cases:
            raise DatasetError(
                f"the {split} split of {dataset.folder} has no cases:"
                f" {way_out(dataset.info, split)}"
            )
        if not _has_organ(content.class_histogram, ignore_label):
            raise DatasetError(
                f"the {split} split of {dataset.folder} has no voxel of any organ"
                f"{_where_ignored(ignore_label)}"
            )


def warn_of_few_validation_cases(dataset: Dataset) -> None:
    """Warns if the validation split has one or two cases, whose Dice says little of others."""
    small = find_small_splits(dataset.info, needed=())
    if "validation" in small:
        logger.warning(small["validation"])


def organs_to_learn(dataset: Dataset, *, fold: Fold | None = None) -> tuple[TrainingOrgan, ...]:
    """Counts the voxels and cases of each organ in the training cases.

    The counts are read from the records where there is a fold or no fingerprint; their volumes are
    not read.

    Args:
        dataset: A finished dataset.
        fold: Fold that reassigns the cases for training and for validation.

    Raises:
        DatasetError: If a file is read and is missing or broken.
    """
    voxels_of = _class_voxels(dataset, ("train",), fold=fold)
    return count_organs(dataset.info.class_names, voxels_of["train"])


def _class_voxels(
    dataset: Dataset, splits: Sequence[str], *, fold: Fold | None
) -> dict[str, list[Sequence[int]]]:
    """The voxels of each class, for each case of some splits."""
    fingerprint = dataset.info.fingerprint
    if fold is not None:
        dealt = deal_cases(dataset, fold).values()
        pairs = [(case.class_voxels, split) for of_file in dealt for case, split in of_file]
    elif fingerprint is not None:
        pairs = [(case.class_voxels, case.split) for case in fingerprint.cases]
    else:
        pairs = [
            (case.class_voxels, split)
            for split in splits
            for of_file in dataset.list_cases((split,)).values()
            for case in of_file
        ]
    return {name: [voxels for voxels, split in pairs if split == name] for name in splits}


def _check_fold(dataset: Dataset, fold: Fold, ignore_label: int | None) -> None:
    dealt = deal_cases(dataset, fold).values()
    pairs = (pair for of_file in dealt for pair in of_file)
    with_organs = {split for case, split in pairs if _has_organ(case.class_voxels, ignore_label)}
    for split in ("train", "validation"):
        if split not in with_organs:
            raise DatasetError(
                f"the cases for {split} of fold {fold} of {dataset.folder} have no voxel of any"
                f" organ{_where_ignored(ignore_label)}"
            )


def _has_organ(class_voxels: Sequence[int], ignore_label: int | None) -> bool:
    """Tells whether a voxel is of a class other than the background and the ignored one."""
    return any(n for k, n in enumerate(class_voxels) if k not in (0, ignore_label))


def _where_ignored(ignore_label: int | None) -> str:
    return "" if ignore_label is None else f" where loss.ignore_label is {ignore_label}"
