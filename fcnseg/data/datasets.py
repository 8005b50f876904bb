"""The two ways to read records: batches of patches for training, whole volumes for validation."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from fcnseg.config import PatchConfig
from fcnseg.data.patches import draw_patch
from fcnseg.errors import DatasetError
from fcnseg.records import DatasetInfo, read_dataset_info
from fcnseg.records.decoding import decode_record, join_records
from fcnseg.volumes.label_map import label_dtype
from fcnseg.volumes.volume import Shape

# Each holds a decoded record; two keep a core busy while the other one reads.
_RECORDS_AT_ONCE = 2
_SHARDS_AT_ONCE = 4
_BATCHES_AHEAD = 2


def make_training_dataset(
    directory: str | os.PathLike[str],
    config: PatchConfig,
    *,
    seed: int,
    split: str = "train",
    num_replicas: int = 1,
    label_size: Shape | None = None,
) -> tf.data.Dataset:
    """Reads batches of random patches, without end; equal seeds give equal batches.

    Memory holds the patches of the shuffle buffer and of two batches, two decoded records, and the
    bytes of one record for each of four shards, twice those where cases take several records; never
    more, however large the dataset.

    Args:
        directory: Folder of a finished dataset.
        config: Size of the patches, and how they are drawn.
        seed: Of everything that is drawn.
        split: Whose cases are read.
        num_replicas: A batch is `config.batch_size` patches for each of them.
        label_size: Voxels (z, y, x) of the label, where the network gives only the middle of its
            input (`output_shape`); by default the whole patch.

    Returns:
        A dataset of HU float32 (batch, z, y, x, 1) and class indices (batch, z, y, x).

    Raises:
        DatasetError: If the dataset is missing, unfinished or without labels, or the split has no
            cases.
    """
    info = read_dataset_info(directory)
    if not info.labelled:
        raise DatasetError(f"training needs labels, and the cases of {directory} have none")
    shards = _shards(info, directory, split)
    shards_at_once = min(len(shards), _SHARDS_AT_ONCE)
    decode = _decoder(info)

    def draw_patches(index: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = decode(serialized)
        seeds = tf.random.experimental.stateless_split([seed, index], config.per_read)
        label_shape = label_size or config.size
        return tf.map_fn(
            lambda patch_seed: draw_patch(
                record,
                patch_seed,
                size=config.size,
                label_size=label_shape,
                foreground_fraction=config.foreground_fraction,
            ),
            seeds,
            fn_output_signature=(
                tf.TensorSpec(config.size, tf.int16),
                tf.TensorSpec(label_shape, record["label"].dtype),
            ),
        )

    return (
        tf.data.Dataset.from_tensor_slices(shards)
        .shuffle(len(shards), seed=seed)
        .repeat()
        .interleave(
            functools.partial(_cases, divided=bool(info.splits[split].divided)),
            cycle_length=shards_at_once,
            num_parallel_calls=shards_at_once,
            deterministic=True,
        )
        .enumerate()
        .map(draw_patches, num_parallel_calls=_RECORDS_AT_ONCE, deterministic=True)
        .unbatch()
        .shuffle(config.shuffle_buffer, seed=seed)
        .batch(config.batch_size * num_replicas, drop_remainder=True)
        .map(lambda hu, label: (tf.cast(hu[..., tf.newaxis], tf.float32), label))
        .prefetch(_BATCHES_AHEAD)
    )


def make_volume_dataset(directory: str | os.PathLike[str], split: str) -> tf.data.Dataset:
    """Reads whole records one after the other, always in the same order.

    Args:
        directory: Folder of a finished dataset.
        split: Whose cases are read.

    Returns:
        A dataset of what `decode_record` gives.

    Raises:
        DatasetError: If the dataset is missing or unfinished, or the split has no cases.
    """
    info = read_dataset_info(directory)
    cases = _cases(_shards(info, directory, split), divided=bool(info.splits[split].divided))
    return cases.map(_decoder(info)).prefetch(1)


def _cases(shards: tf.Tensor | list[str], *, divided: bool) -> tf.data.Dataset:
    """Serialised cases: scalar strings, or where a case may take several records, strings (n,)."""
    records = tf.data.TFRecordDataset(shards)
    return join_records(records) if divided else records


def _decoder(info: DatasetInfo) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    dtype = tf.as_dtype(label_dtype(info.num_classes)) if info.labelled else None
    return lambda serialized: decode_record(serialized, label_dtype=dtype)


def _shards(info: DatasetInfo, directory: str | os.PathLike[str], split: str) -> list[str]:
    """Paths of a split's files."""
    if not info.splits[split].cases:
        raise DatasetError(f"the {split} split of {directory} has no cases")
    paths = [Path(directory) / shard.name for shard in info.splits[split].shards]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise DatasetError(f"a file of the dataset is missing: {missing[0]}")
    return [str(path) for path in paths]
