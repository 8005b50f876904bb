"""The dataset of a run, and the organs that can be learnt from it."""

from __future__ import annotations

from fcnseg.errors import DatasetError
from fcnseg.records import Dataset
from fcnseg.sampling import Fold
from fcnseg.sampling.shards import deal_cases
from fcnseg.training.organs import TrainingOrgan, check_organs, count_organs


def check_dataset(dataset: Dataset, *, fold: Fold | None = None) -> None:
    """Checks that a dataset can be trained and validated on.

    Args:
        dataset: A finished one.
        fold: Deals the cases for training and for validation again.

    Raises:
        DatasetError: If what is for training or for validation has no cases or no organ, or there
            are fewer patients than folds.
    """
    if fold is None:
        _check_splits(dataset)
    else:
        _check_fold(dataset, fold)


def check_each_organ(
    dataset: Dataset, *, fold: Fold | None = None, ignore_label: int | None = None
) -> None:
    """Checks that training sees each organ; those in few training cases are warned of.

    Args:
        dataset: A finished one.
        fold: Deals the cases for training and for validation again.
        ignore_label: Class index of voxels that count nowhere, which need not be there.

    Raises:
        DatasetError: If an organ has no voxel in the cases that train.
    """
    organs = organs_to_learn(dataset, fold=fold)
    counted = [organ for k, organ in enumerate(organs, start=1) if k != ignore_label]
    of_fold = "" if fold is None else f" of fold {fold}"
    check_organs(counted, source=f"the training cases{of_fold} of {dataset.folder}")


def _check_splits(dataset: Dataset) -> None:
    for split in ("train", "validation"):
        content = dataset.info.splits[split]
        if not content.cases:
            raise DatasetError(f"the {split} split of {dataset.folder} has no cases")
        if not any(content.class_histogram[1:]):
            raise DatasetError(f"the {split} split of {dataset.folder} has no voxel of any organ")


def organs_to_learn(dataset: Dataset, *, fold: Fold | None = None) -> tuple[TrainingOrgan, ...]:
    """Counts the voxels and cases of each organ that training sees.

    Args:
        dataset: A finished one.
        fold: Deals the cases for training and for validation anew.
    """
    info = dataset.info
    if fold is not None:
        dealt = deal_cases(dataset, fold).values()
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


def _check_fold(dataset: Dataset, fold: Fold) -> None:
    dealt = deal_cases(dataset, fold).values()
    with_organs = {split for cases in dealt for case, split in cases if case.has_organ}
    for split in ("train", "validation"):
        if split not in with_organs:
            raise DatasetError(
                f"the cases for {split} of fold {fold} of {dataset.folder} have no voxel of any"
                " organ"
            )
