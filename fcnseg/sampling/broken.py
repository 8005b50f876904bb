"""What TensorFlow says of a broken record, turned into the file and the case."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import tensorflow as tf

from fcnseg.errors import DatasetError
from fcnseg.records import read_dataset_info
from fcnseg.records.damage import find_damage

logger = logging.getLogger(__name__)

# A wrong checksum; a file of another kind or schema; one that has gone; a disk that fails.
_OF_READING = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def naming_broken_files(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Looks for a broken file where reading a dataset fails: TensorFlow names none.

    Args:
        directory: Folder of the dataset that the block reads.

    Raises:
        DatasetError: If the block fails and a file is broken.
    """
    try:
        yield
    except _OF_READING as error:
        logger.info(f"reading {directory} failed: looking for a broken file")
        damage = next(find_damage(directory, read_dataset_info(directory)), None)
        if damage is None:  # the data are as they were written
            raise
        raise DatasetError(str(damage)) from error
