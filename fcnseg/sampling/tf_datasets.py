"""The two ways to read records: batches of patches to train on, complete volumes to validate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from fcnseg.config import AugmentationConfig, PatchConfig
from fcnseg.errors import DatasetError
from fcnseg.records import Dataset, DatasetInfo
from fcnseg.records.decoding import decode_record
from fcnseg.records.folds import Fold
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.sampling.augmentation.intensity import Parameters
from fcnseg.sampling.case_order import CaseOrder
from fcnseg.sampling.centres import CentreRule, draw_centre
from fcnseg.sampling.patch_order import Blocks
from fcnseg.sampling.patches import cut_patch
from fcnseg.sampling.shards import ShardSelection, shard_opener, shards_of
from fcnseg.volumes import LabelMap, Shape

# Each holds a decoded case; two keep a core busy while the other one reads.
_CASES_AT_ONCE = 2
_BATCHES_AHEAD = 2
# Separates the random stream of the augmentation from that of the patch.
_AUGMENTATION = 1
_NONE = AugmentationConfig()

# The contents of a patch: tensors by name, one of them a dictionary.
Patches = dict[str, Any]


class Batch(NamedTuple):
    """A batch of patches.

    Attributes:
        hu: HU float32 (batch, z, y, x, 1).
        label: Class indices (batch, z, y, x).
        parameters: The drawn parameters of an augmentation that is still to be applied, with
            `Augmentation.apply`: then `hu` is int16 (batch, z, y, x), and both it and `label` have
            the `Augmentation.source_size`. Empty if there is none.
    """

    hu: tf.Tensor
    label: tf.Tensor
    parameters: Parameters


# What depends on tensors is a `tf.cond`: AutoGraph has nothing to convert, here or in what it
# calls, and takes two seconds to find that out.
@tf.autograph.experimental.do_not_convert
def make_training_dataset(
    dataset: Dataset,
    config: PatchConfig,
    *,
    seed: int,
    augmentation: AugmentationConfig = _NONE,
    split: str = "train",
    fold: Fold | None = None,
    num_replicas: int = 1,
    label_size: Shape | None = None,
    start_step: int = 0,
    with_case_ids: bool = False,
) -> tf.data.Dataset:
    """Reads batches of random patches, without end; equal seeds give equal batches.

    Each batch is determined by the seed and its number, so a dataset that starts at a step gives
    the same batches as another one after so many batches, and need not read the records before.

    Host memory holds, however large the dataset: three blocks of patches (a block is the shuffle
    buffer, rounded up to whole reads and whole batches), four batches as float32, two decoded cases
    with the patches drawn from them, and the bytes of two cases for each of four files, twice those
    if cases take several records.

    Args:
        dataset: A finished dataset.
        config: Size and sampling of the patches.
        seed: Seed of all random draws.
        augmentation: Augmentation of the patches.
        split: The split to read.
        fold: Fold that reassigns the cases for training and for validation.
        num_replicas: Number of replicas; a batch is `config.batch_size` patches for each.
        label_size: Voxels (z, y, x) of the label, if the network predicts only the middle of its
            input (`output_shape`); by default the complete patch.
        start_step: Number of the first batch, for a resumed run.
        with_case_ids: Give pairs of a batch and the ids (batch,) of its cases.

    Returns:
        A dataset of `Batch`; only with `augmentation.run_on` "device" it has parameters.

    Raises:
        DatasetError: If the dataset has no labels or lacks a file, the split has no cases, or there
            are fewer patients than folds.
    """
    info = dataset.info
    if not info.labelled:
        raise DatasetError(f"training needs labels, and the cases of {dataset.folder} have none")
    changes = Augmentation(augmentation, config.size, label_size or config.size, info.spacing_mm)
    blocks = Blocks.of(config, batch_size=config.batch_size * num_replicas)
    shards = shards_of(dataset, split, fold=fold)
    order = CaseOrder(tuple(shard.cases for shard in shards), seed)
    cases = order.read(_opener(info, shards), start=blocks.first_read(start_step))
    draw = functools.partial(_draw_patches, config=config, changes=changes, seed=seed)
    decode = _decoder(info)
    reads = cases.map(
        lambda read, serialized: draw(read, decode(serialized)),
        num_parallel_calls=_CASES_AT_ONCE,
        deterministic=True,
    )
    batches = blocks.shuffled(reads, seed=seed, step=start_step)
    finish = functools.partial(_finished, with_case_ids=with_case_ids)
    return _without_autotuning(batches.map(finish).prefetch(_BATCHES_AHEAD))


def _draw_patches(
    read: tf.Tensor,
    record: dict[str, tf.Tensor],
    *,
    config: PatchConfig,
    changes: Augmentation,
    seed: int,
) -> Patches:
    """The patches (samples_per_volume, ...) of a case, for the read with that number."""
    seeds = tf.random.experimental.stateless_split([seed, read], config.samples_per_volume)
    patches = [
        _draw_patch(record, patch_seed, config=config, changes=changes)
        for patch_seed in tf.unstack(seeds)
    ]
    return tf.nest.map_structure(lambda *parts: tf.stack(parts), *patches)


def _draw_patch(
    record: dict[str, tf.Tensor], seed: tf.Tensor, *, config: PatchConfig, changes: Augmentation
) -> Patches:
    rule = CentreRule(
        changes.label_size,
        config.foreground_fraction,
        translation=changes.config.translation_voxels,
        displacement=changes.largest_displacement,
    )
    parameters = changes.draw(tf.random.experimental.stateless_fold_in(seed, _AUGMENTATION))
    matrix = parameters["matrix"] if changes.config.warps else None
    hu, label = cut_patch(
        record,
        draw_centre(record, seed, rule, matrix=matrix),
        size=changes.source_size,
        label_size=changes.source_size if changes.active else changes.label_size,
    )
    patch: Patches = {"hu": hu, "label": label, "case_id": record["case_id"]}
    if not changes.active:
        return patch
    if changes.config.run_on == "device":
        return patch | {"parameters": parameters}
    batch = tf.nest.map_structure(lambda part: part[tf.newaxis], (hu, label, parameters))
    hu, label = changes.apply_compiled(*batch)
    # Records hold integer HU too; float32 would double the block. The device rounds as well.
    return patch | {"hu": tf.cast(tf.round(hu[0]), tf.int16), "label": label[0]}


def _finished(patches: Patches, *, with_case_ids: bool) -> Batch | tuple[Batch, tf.Tensor]:
    hu, parameters = patches["hu"], patches.get("parameters", {})
    if not parameters:
        hu = tf.cast(hu[..., tf.newaxis], tf.float32)
    batch = Batch(hu, patches["label"], parameters)
    return (batch, patches["case_id"]) if with_case_ids else batch


@tf.autograph.experimental.do_not_convert
def make_volume_dataset(
    dataset: Dataset, split: str, *, fold: Fold | None = None
) -> tf.data.Dataset:
    """Reads complete records one after the other, always in the same order.

    Args:
        dataset: A finished dataset.
        split: The split to read.
        fold: Fold that reassigns the cases for training and for validation.

    Returns:
        A dataset of records as `decode_record` gives them.

    Raises:
        DatasetError: If a file is missing, the split has no cases, or there are fewer patients than
            folds.
    """
    shards = shards_of(dataset, split, fold=fold)
    cases = tf.data.Dataset.range(len(shards)).flat_map(_opener(dataset.info, shards))
    return _without_autotuning(cases.map(_decoder(dataset.info)).prefetch(1))


def _without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Has TensorFlow tune nothing: all numbers are given.

    Its tuner sleeps, longer each time, up to a minute. On one core it often does not notice that
    the iterator is deleted, which then waits for it: a third of the time of a search with a core
    for each trial.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _opener(
    info: DatasetInfo, shards: Sequence[ShardSelection]
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    divided = any(split.divided for split in info.splits.values())
    return shard_opener(shards, divided=divided)


def _decoder(info: DatasetInfo) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    dtype = tf.as_dtype(LabelMap.from_mapping(info.label_map).dtype) if info.labelled else None
    return lambda serialized: decode_record(serialized, label_dtype=dtype)
