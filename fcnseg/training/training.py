"""One training run: from a folder of records to a folder with the best network."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcnseg import __version__
from fcnseg.architecture import output_shape
from fcnseg.config import Config, TrainingConfig, write_config
from fcnseg.data import make_training_dataset, make_volume_dataset
from fcnseg.data.augmentation import Augmentation
from fcnseg.errors import DatasetError
from fcnseg.inference.segmenter import make_segmenter
from fcnseg.model_info import MODEL_INFO_FILE, ModelInfo
from fcnseg.models import OrganDice, build_fcn, build_loss, full_resolution, level_weights
from fcnseg.records import INFO_FILE, DatasetInfo, read_dataset_info
from fcnseg.run_folder import (
    BEST_MODEL_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    RunManifest,
    make_run_folder,
)
from fcnseg.training.augmented_step import augment_in_step
from fcnseg.training.callbacks import HistoryFile, KeepBest, Validation

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How a run went.

    Attributes:
        run_dir: Its folder.
        best_dice: Validation Dice, mean over organs, of the network that was kept.
        best_epoch: After which it was reached, from 1.
        history: Values by name: of the loss and of training Dice after each epoch, of the others
            after each validation.
    """

    run_dir: Path
    best_dice: float
    best_epoch: int
    history: dict[str, list[float]]


def train(
    config: Config, data: str | os.PathLike[str], run_dir: str | os.PathLike[str]
) -> TrainingResult:
    """Trains a network on all visible devices and keeps the one that validates best.

    The global random generators of Python, numpy and Keras are set to the configuration's seed.

    Args:
        config: All settings.
        data: Folder of a finished dataset.
        run_dir: Folder that is made: `config.yaml`, `model_info.json`, `history.csv`, `best.keras`,
            and `run.json` once everything is done.

    Returns:
        How it went.

    Raises:
        InputError: If `run_dir` is in use, or the dataset is missing, unfinished, or has nothing to
            train or validate on.
        ModelError: If the patches do not fit the network.
    """
    started = datetime.datetime.now(datetime.timezone.utc)
    info = check_dataset(data)
    output_shape(config.model, config.patches.size)  # or an error, before a folder is made
    folder = make_run_folder(run_dir)
    strategy = make_strategy()
    model, patches = make_model_and_patches(config, data, info, strategy)
    model_info = make_model_info(config, info)
    network = full_resolution(model)
    segmenter = make_segmenter(network, model_info)
    volumes = make_volume_dataset(data, "validation")
    validation = Validation(segmenter, volumes, every=config.training.validate_every)
    best = KeepBest(folder / BEST_MODEL_FILE, network)
    write_config(config, folder / CONFIG_FILE)
    (folder / MODEL_INFO_FILE).write_text(model_info.to_json(), encoding="utf-8")
    history = _fit(model, patches, config, folder, validation, best)
    manifest = RunManifest(
        best_dice=best.best_dice,
        best_epoch=best.best_epoch,
        parameters=sum(math.prod(weight.shape) for weight in network.trainable_weights),
        versions=_versions(),
        devices=tuple(strategy.extended.worker_devices),
        data=str(data),
        data_fingerprint=hashlib.sha256((Path(data) / INFO_FILE).read_bytes()).hexdigest(),
        config=config,
        started=started.isoformat(timespec="seconds"),
        seconds=(datetime.datetime.now(datetime.timezone.utc) - started).total_seconds(),
        validation_seconds=validation.seconds,
    )
    manifest.write(folder)
    logger.info(f"best validation Dice {best.best_dice:.4f} in epoch {best.best_epoch}: {folder}")
    return TrainingResult(folder, best.best_dice, best.best_epoch, history)


def _fit(
    model: keras.Model,
    patches: tf.data.Dataset,
    config: Config,
    folder: Path,
    validation: Validation,
    best: KeepBest,
) -> dict[str, list[float]]:
    """Trains; returns the history."""
    dices = [column.removeprefix("val_") for column in validation.columns]  # of OrganDice
    history_file = HistoryFile(folder / HISTORY_FILE, ["loss", *dices, *validation.columns])
    history: dict[str, list[float]] = model.fit(
        patches,
        epochs=config.training.epochs,
        steps_per_epoch=config.training.steps_per_epoch,
        shuffle=False,  # the dataset does that
        # What one adds to the logs is seen by the next, and by the progress bar last.
        callbacks=[validation, best, history_file],
        verbose=1 if sys.stdout.isatty() else 2,  # the moving bar would fill a log file
    ).history
    return history


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


def make_model_and_patches(
    config: Config,
    data: str | os.PathLike[str],
    info: DatasetInfo,
    strategy: tf.distribute.Strategy,
) -> tuple[keras.Model, tf.data.Dataset]:
    """The compiled network on all devices and the batches that it is trained on.

    The global random generators of Python, numpy and Keras are set to the configuration's seed.

    Args:
        config: All settings.
        data: Folder of a finished dataset.
        info: Its manifest.
        strategy: Of the devices.

    Raises:
        ModelError: If the patches do not fit the network.
    """
    label_size = output_shape(config.model, config.patches.size)
    keras.utils.set_random_seed(config.training.seed)
    with strategy.scope():
        model = build_compiled(config, class_names=info.class_names)
    patches = make_training_dataset(
        data,
        config.patches,
        seed=config.training.seed,
        augmentation=config.augmentation,
        num_replicas=strategy.num_replicas_in_sync,
        label_size=label_size,
    )
    if config.augmentation.run_on == "device":
        size, spacing = config.patches.size, info.spacing_mm
        augment_in_step(model, Augmentation(config.augmentation, size, label_size, spacing))
    return model, patches


def make_strategy() -> tf.distribute.Strategy:
    """A `MirroredStrategy` over all visible GPUs, or over the CPU devices where there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    cpus = tf.config.list_logical_devices("CPU")
    # Given explicitly: what TensorFlow would choose is the same, with a warning.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in cpus], reduction)


def build_compiled(config: Config, *, class_names: Sequence[str]) -> keras.Model:
    """Builds the network with its optimizer, loss and metric, in the current strategy's scope."""
    settings = config.training
    model = build_fcn(
        config.model,
        num_classes=len(class_names),
        precision=settings.precision,
        supervised=True,
    )
    optimizer = keras.optimizers.Adam(_learning_rate(settings))
    if settings.precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    loss = build_loss(config.loss)
    levels = len(model.outputs)
    weights = level_weights(levels, config.loss.level_weights)
    model.compile(
        optimizer=optimizer,
        loss=loss if levels == 1 else [loss] * levels,
        loss_weights=None if levels == 1 else weights,
        metrics=[OrganDice(class_names, ignore_label=config.loss.ignore_label)],
        jit_compile=False,  # on CPU a compiled step takes ten times as long
    )
    return model


def _learning_rate(
    settings: TrainingConfig,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if settings.schedule == "constant":
        return settings.learning_rate
    steps = settings.epochs * settings.steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)


def make_model_info(config: Config, data: DatasetInfo) -> ModelInfo:
    """The facts that travel with a network trained on a dataset."""
    return ModelInfo(
        class_names=data.class_names,
        spacing_mm=data.spacing_mm,
        hu_window=config.model.hu_window,
        window=config.patches.size,
        overlap=config.inference.overlap,
        batch_size=config.inference.batch_size,
        max_voxels=config.inference.max_voxels,
    )


def _versions() -> dict[str, str]:
    return {
        "fcnseg": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
