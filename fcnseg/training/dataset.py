"""The dataset of a run: fit to train on, and known again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fcnseg.data import Fold
from fcnseg.data.shards import deal_cases
from fcnseg.errors import DatasetError
from fcnseg.records import INFO_FILE, DatasetInfo, read_dataset_info


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
    if fold is not None:
        _check_fold(data, info, fold)
        return info
    for split in ("train", "validation"):
        if not info.splits[split].cases:
            raise DatasetError(f"the {split} split of {data} has no cases")
        if not any(info.splits[split].class_histogram[1:]):
            raise DatasetError(f"the {split} split of {data} has no voxel of any organ")
    return info


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
