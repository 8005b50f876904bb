"""The files that training or validation reads, and the cases in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from fcnseg.errors import DatasetError
from fcnseg.records import Dataset
from fcnseg.records.decoding import join_records
from fcnseg.records.folds import DEALT, Fold
from fcnseg.records.listing import ListedCase


@dataclasses.dataclass(frozen=True)
class ShardSelection:
    """A file, and its cases to read.

    Attributes:
        path: The file.
        read: For each of its cases in order, True if it is read; None if all are.
        cases: Number of cases read.
    """

    path: str
    read: tuple[bool, ...] | None
    cases: int


def shards_of(dataset: Dataset, split: str, *, fold: Fold | None = None) -> list[ShardSelection]:
    """The files of a split.

    Args:
        dataset: The dataset.
        split: One of `fcnseg.records.SPLITS`.
        fold: Fold that reassigns the cases for training and for validation; None leaves them as
            converted.

    Raises:
        DatasetError: If the split has no cases, a file is missing or has another size, or there are
            fewer patients than folds.
    """
    if fold is None or split not in DEALT:
        shards = dataset.info.splits[split].shards
        if not shards:
            raise DatasetError(f"the {split} split of {dataset.folder} has no cases")
        paths = dataset.paths([split])
        return [
            ShardSelection(path, None, shard.cases)
            for path, shard in zip(paths, shards, strict=True)
        ]
    dealt = deal_cases(dataset, fold)
    reads = {path: tuple(is_in == split for _, is_in in cases) for path, cases in dealt.items()}
    return [ShardSelection(path, read, sum(read)) for path, read in reads.items() if any(read)]


def deal_cases(dataset: Dataset, fold: Fold) -> dict[str, list[tuple[ListedCase, str]]]:
    """Reassigns the training and validation cases by patient, with the dataset's seed.

    Args:
        dataset: The dataset.
        fold: The division to use.

    Returns:
        The cases of each file in order, each with its split.

    Raises:
        DatasetError: If a file is missing or broken, or there are fewer patients than folds.
    """
    listed = dataset.list_cases(DEALT)
    patients = {case.case_id: case.patient_id for cases in listed.values() for case in cases}
    split_of = fold.deal(patients, seed=dataset.info.seed)
    return {
        path: [(case, split_of[case.case_id]) for case in cases] for path, cases in listed.items()
    }


def shard_opener(
    shards: Sequence[ShardSelection], *, divided: bool
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Makes the function that opens the file with a number.

    Args:
        shards: The files.
        divided: True if a case may take several records.

    Returns:
        A function of a number int64 () that gives the serialised cases to read of that file: scalar
        strings, or strings (n,) if a case may take several records.
    """
    paths = tf.constant([shard.path for shard in shards])
    # (file, case); files have different numbers of cases.
    read = tf.ragged.constant([shard.read or () for shard in shards], tf.bool).to_tensor()

    def open_shard(index: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[index])
        cases = join_records(records) if divided else records
        if all(shard.read is None for shard in shards):
            return cases
        chosen = cases.enumerate().filter(lambda number, _: read[index, number])
        return chosen.map(lambda _, case: case)

    return open_shard
