"""The dataset of a run: fit to train on, and known again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fcnseg.errors import DatasetError
from fcnseg.records import INFO_FILE, DatasetInfo, read_dataset_info


def check_dataset(data: str | os.PathLike[str]) -> DatasetInfo:
    """Reads the manifest of a dataset that can be trained and validated on.

    Raises:
        DatasetError: If the dataset is missing or unfinished, or the split for training or for
            validation has no cases or no organ.
    """
    info = read_dataset_info(data)
    for split in ("train", "validation"):
        if not info.splits[split].cases:
            raise DatasetError(f"the {split} split of {data} has no cases")
        if not any(info.splits[split].class_histogram[1:]):
            raise DatasetError(f"the {split} split of {data} has no voxel of any organ")
    return info


def dataset_digest(data: str | os.PathLike[str]) -> str:
    """SHA-256 of a dataset's manifest, which holds the checksum of every file."""
    return hashlib.sha256((Path(data) / INFO_FILE).read_bytes()).hexdigest()
