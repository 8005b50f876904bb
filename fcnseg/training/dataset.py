"""The dataset of a run: fit to train on, and known again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fcnseg.errors import DatasetError
from fcnseg.records import INFO_FILE, DatasetInfo, read_dataset_info
from fcnseg.sampling import Fold
from fcnseg.sampling.shards import deal_cases
from fcnseg.training.organs import TrainingOrgan, check_organs, count_organs


def check_dataset(data: str | os.PathLike[str], *, fold: Fold | None = None) -> DatasetInfo:
    """Reads the manifest of a dataset that can be trained and validated on.

    Args:
        data: Its folder.
        fold: Deals the cases for training and for validation anew.

    Raises:
        DatasetError: If the dataset is missing or unfinished, what is for training or for
            validation has no cases or no organ, or there are fewer patients than folds.
    """
    info = read_dataset_info(data)
    if fold is None:
        _check_splits(data, info)
    else:
        _check_fold(data, info, fold)
    return info


def check_each_organ(
    data: str | os.PathLike[str],
    info: DatasetInfo,
    *,
    fold: Fold | None = None,
    ignore_label: int | None = None,
) -> None:
    """Checks that training sees each organ; those in few training cases are warned of.

    Args:
        data: Folder of a finished dataset.
        info: Its manifest.
        fold: Deals the cases for training and for validation again.
        ignore_label: Class index of voxels that count nowhere, which need not be there.

    Raises:
        DatasetError: If an organ has no voxel in the cases that train.
    """
    organs = organs_to_learn(data, info, fold=fold)
    counted = [organ for k, organ in enumerate(organs, start=1) if k != ignore_label]
    of_fold = "" if fold is None else f" of fold {fold}"
    check_organs(counted, source=f"the training cases{of_fold} of {data}")


def _check_splits(data: str | os.PathLike[str], info: DatasetInfo) -> None:
    for split in ("train", "validation"):
        if not info.splits[split].cases:
            raise DatasetError(f"the {split} split of {data} has no cases")
        if not any(info.splits[split].class_histogram[1:]):
            raise DatasetError(f"the {split} split of {data} has no voxel of any organ")


def organs_to_learn(
    data: str | os.PathLike[str], info: DatasetInfo, *, fold: Fold | None = None
) -> tuple[TrainingOrgan, ...]:
    """Counts the voxels and cases of each organ that training sees.

    Args:
        data: Folder of a finished dataset.
        info: Its manifest.
        fold: Deals the cases for training and for validation anew.
    """
    if fold is not None:
        dealt = deal_cases(data, info, fold).values()
        pairs = (pair for of_file in dealt for pair in of_file)
        voxels = [case.class_voxels for case, split in pairs if split == "train"]
        return count_organs(info.class_names, voxels)
    if info.fingerprint is not None:
        cases = info.fingerprint.cases
        voxels = [case.class_voxels for case in cases if case.split == "train"]
        return count_organs(info.class_names, voxels)
    histogram = info.splits["train"].class_histogram
    organs = zip(info.class_names[1:], histogram[1:], strict=True)
    return tuple(TrainingOrgan(name, None, voxels) for name, voxels in organs)


def _check_fold(data: str | os.PathLike[str], info: DatasetInfo, fold: Fold) -> None:
    dealt = deal_cases(data, info, fold).values()
    with_organs = {split for cases in dealt for case, split in cases if case.has_organ}
    for split in ("train", "validation"):
        if split not in with_organs:
            raise DatasetError(
                f"the cases for {split} of fold {fold} of {data} have no voxel of any organ"
            )


def dataset_digest(data: str | os.PathLike[str]) -> str:
    """SHA-256 of a dataset's manifest, which holds the checksum of every file."""
    return hashlib.sha256((Path(data) / INFO_FILE).read_bytes()).hexdigest()
