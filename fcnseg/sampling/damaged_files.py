"""Translation of TensorFlow's errors on broken records into the file and the case."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import tensorflow as tf

from fcnseg.errors import DatasetError
from fcnseg.records import Dataset

logger = logging.getLogger(__name__)

# A wrong checksum; a file of another kind or schema; a deleted file; a failing disk.
_OF_READING = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def naming_broken_files(dataset: Dataset) -> Iterator[None]:
    """Looks for a broken file when reading a dataset fails: TensorFlow's error names none.

    Args:
        dataset: The dataset that the block reads.

    Raises:
        DatasetError: If the block fails and a file is broken.
    """
    try:
        yield
    except _OF_READING as error:
        logger.info(f"reading {dataset.folder} failed: looking for a broken file")
        damage = next(dataset.find_damage(), None)
        if damage is None:  # the data are intact
            raise
        raise DatasetError(str(damage)) from error
