"""One training run: from a folder of records to a folder with the best network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcnseg import __version__
from fcnseg.config import Config, write_config
from fcnseg.errors import InputError
from fcnseg.networks import output_shape
from fcnseg.records import Dataset, Fold
from fcnseg.runs.history import columns_of, read_history
from fcnseg.runs.run_folder import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    FINAL_STATE_FILE,
    HISTORY_FILE,
    MANIFEST_FILE,
    RunManifest,
    check_same,
    is_extended,
    make_run_folder,
    read_run,
)
from fcnseg.sampling.damaged_files import naming_broken_files
from fcnseg.storage.folder_lock import locked_folder
from fcnseg.storage.whole_file import make_folder
from fcnseg.training.assembly import make_loop
from fcnseg.training.dataset_checks import (
    check_dataset,
    check_each_organ,
    warn_of_few_validation_cases,
)
from fcnseg.training.half_precision import check_half_precision
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.out_of_memory import naming_memory_settings
from fcnseg.training.provenance import Provenance, identity_of
from fcnseg.training.setting_checks import check_settings
from fcnseg.training.strategy import device_names

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of a run.

    Attributes:
        run_dir: Its folder.
        best_dice: Validation Dice, mean over organs, of the network that was kept; minus infinity
            if the run stopped before its first validation.
        best_epoch: Epoch after which it was reached, from 1; 0 for none.
        history: Values by name: loss and training Dice after each epoch, others after each
            validation.
    """

    run_dir: Path
    best_dice: float
    best_epoch: int
    history: dict[str, list[float]]


def train(
    config: Config,
    data: Dataset | str | os.PathLike[str],
    run_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    init_from: str | os.PathLike[str] | None = None,
    fold: Fold | None = None,
    devices: Sequence[str] = (),
    until_epoch: int | None = None,
    keep_final_state: bool = True,
) -> TrainingResult:
    """Trains a network on one or more devices and keeps the one that validates best.

    The global random generators of Python, numpy and Keras are set to the configuration's seed.

    Args:
        config: All settings.
        data: A finished dataset, or its folder; a dataset in an object store is read through local
            copies of its files, see `fcnseg.records.local_files`.
        run_dir: Folder to create: `config.yaml`, `model_info.json`, `history.csv`, `best.keras`,
            `tensorboard`, and `run.json` once everything is done; `checkpoint.npz` until then, and
            `final_state.npz` afterwards.
        resume: Resume the run in `run_dir`, as if it had not stopped. If there is none, a new run
            begins. A finished one is left unchanged, or extended if there are more epochs: the
            learning rate then follows the schedule of all epochs.
        init_from: Folder of a finished run whose best weights initialise this one; by default
            initial weights are random.
        fold: Fold that reassigns the cases for training and validation, for cross-validation.
        devices: Number of devices, or their names, such as `GPU:0`; by default all GPUs, or all CPU
            devices if there is no GPU.
        until_epoch: Stop after this epoch, from 1, with a checkpoint that `resume` continues; the
            learning rate follows the schedule of all epochs.
        keep_final_state: Keep `final_state.npz`, without which a finished run cannot be extended;
            it is three times as large as the network.

    Returns:
        The result of the run, or of its epochs so far.

    Raises:
        FolderInUseError: If another process trains in `run_dir`.
        InputError: If `run_dir` is that of another run, or the dataset is missing, unfinished, or
            has nothing to train or validate on, `init_from` is not a finished run of such a
            network, there are no such devices, or `until_epoch` is below 1.
        ConfigError: If a setting does not fit the dataset or the devices.
        ModelError: If the patches do not fit the network.
        OutOfMemoryError: If network and patches do not fit in the memory of a device.
        TrainingStoppedError: If the process receives a SIGTERM or a Ctrl-C; `resume` continues the
            run.
    """
    if until_epoch is not None and until_epoch < 1:
        raise InputError(f"until_epoch must be at least 1, got {until_epoch}")
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    check_dataset(dataset, fold=fold, ignore_label=config.loss.ignore_label)
    info = dataset.info
    check_settings(config, info, fold=fold, devices=devices)
    check_each_organ(dataset, fold=fold, ignore_label=config.loss.ignore_label)
    output_shape(config.model, config.patches.size)
    check_half_precision(config, device_names(devices), num_classes=info.num_classes)
    with locked_folder(make_folder(run_dir, argument="run_dir"), argument="run_dir"):
        folder = make_run_folder(run_dir, config, resume=resume)
        provenance = Provenance.of(dataset, init_from=init_from, fold=fold)
        if (folder / MANIFEST_FILE).exists():
            then = read_run(folder).config
            if not is_extended(then, config):
                return _finished(folder, provenance, keep_final_state=keep_final_state)
            _begin_extension(folder, then, config)
        with naming_memory_settings(config):
            loop = make_loop(config, provenance, folder, devices=devices)
            _train(loop, provenance, devices=devices, until_epoch=until_epoch)
        if loop.is_finished():
            _finish(config, provenance, loop, folder)
            _end_checkpoint(folder, keep=keep_final_state)
        history = columns_of(loop.progress.epochs)
        return TrainingResult(folder, loop.best.best_dice, loop.best.best_epoch, history)


def _train(
    loop: TrainingLoop, provenance: Provenance, *, devices: Sequence[str], until_epoch: int | None
) -> None:
    """Trains from the checkpoint, if there is one, to an epoch or to the end."""
    loop.resume()
    if provenance.fold is None:  # of folds, all validation cases count together
        warn_of_few_validation_cases(provenance.dataset)
    logger.info(f"trains on {', '.join(device_names(devices))}")
    with naming_broken_files(provenance.dataset):
        loop.run(until_epoch=until_epoch)


def _finish(config: Config, provenance: Provenance, loop: TrainingLoop, folder: Path) -> None:
    """Writes the manifest of a run that has trained to the end."""
    if not loop.best.best_epoch:  # it was deleted, as `--resume` advises if it is broken
        raise InputError(
            f"no epoch is left that could make {loop.best.path}: delete {loop.checkpoints.path},"
            " and --resume begins the run again"
        )
    manifest = _manifest(config, provenance, loop)
    manifest.write(folder)
    loop.lost.warn_of_best(manifest.best_epoch)
    logger.info(
        f"best validation Dice {manifest.best_dice:.4f} in epoch {manifest.best_epoch}: {folder}"
    )


def _manifest(config: Config, provenance: Provenance, loop: TrainingLoop) -> RunManifest:
    """Makes the manifest of a finished run."""
    network = loop.best.network
    identity = provenance.identity()
    return RunManifest(
        best_dice=loop.best.best_dice,
        best_epoch=loop.best.best_epoch,
        parameters=sum(math.prod(weight.shape) for weight in network.trainable_weights),
        weights_sha256=weights_digest(network),
        versions=_versions(),
        devices=tuple(loop.model.distribute_strategy.extended.worker_devices),
        data=str(provenance.dataset.folder),
        data_digest=identity["data"],
        init_from=identity["init_from"],
        fold=None if provenance.fold is None else provenance.fold.number,
        folds=None if provenance.fold is None else provenance.fold.count,
        validation_cases=provenance.validation_cases(),
        lost_organs=loop.lost.not_found_in(loop.best.best_epoch),
        config=config,
        started=loop.progress.started,
        seconds=loop.progress.seconds,
        validation_seconds=loop.progress.validation_seconds,
    )


def _finished(folder: Path, provenance: Provenance, *, keep_final_state: bool) -> TrainingResult:
    """Gives the result of a finished run, if it has the same provenance."""
    manifest = read_run(folder)
    check_same(identity_of(manifest), provenance.identity(), what=f"the run in {folder}")
    _end_checkpoint(folder, keep=keep_final_state)  # it was killed at its end
    logger.info(f"already finished: {folder}")
    history = columns_of(read_history(folder / HISTORY_FILE))
    return TrainingResult(folder, manifest.best_dice, manifest.best_epoch, history)


def _end_checkpoint(folder: Path, *, keep: bool) -> None:
    """Renames or deletes the checkpoint, so that it is no longer that of an unfinished run."""
    with contextlib.suppress(FileNotFoundError):
        if keep:
            (folder / CHECKPOINT_FILE).rename(folder / FINAL_STATE_FILE)
        else:
            (folder / CHECKPOINT_FILE).unlink()


def _begin_extension(folder: Path, then: Config, config: Config) -> None:
    """Makes a finished run one that resumes with more epochs.

    A process killed in here leaves the finished run, or one that the same command resumes.
    """
    if not (folder / CHECKPOINT_FILE).exists():
        if not (folder / FINAL_STATE_FILE).exists():
            raise InputError(
                f"training.epochs must be {then.training.epochs}, with which the run in {folder}"
                f" finished, got {config.training.epochs}: {FINAL_STATE_FILE} is missing; another"
                " run can start from its network with --init_from"
            )
        (folder / FINAL_STATE_FILE).rename(folder / CHECKPOINT_FILE)
    write_config(config, folder / CONFIG_FILE)
    (folder / MANIFEST_FILE).unlink()
    logger.info(
        f"extends the run from epoch {then.training.epochs} to {config.training.epochs}: the"
        f" learning rate continues on the {config.training.schedule} schedule of"
        f" {config.training.epochs} epochs"
    )


def _versions() -> dict[str, str]:
    return {
        "fcnseg": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def weights_digest(network: keras.Model) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for weight in network.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()
