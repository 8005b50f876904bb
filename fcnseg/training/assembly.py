"""Assembly of a run before it starts: network, data, validation and checkpoints."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from fcnseg.config import Config, override, write_config
from fcnseg.inference.segmenter import make_segmenter
from fcnseg.networks import output_shape
from fcnseg.networks.build import full_resolution
from fcnseg.networks.keras_compat import LINE, tensorflow_variables
from fcnseg.records import Dataset, DatasetInfo, Fold
from fcnseg.runs.model_info import MODEL_INFO_FILE, ModelInfo
from fcnseg.runs.run_folder import (
    BEST_MODEL_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    TENSORBOARD_FOLDER,
)
from fcnseg.sampling import make_training_dataset, make_volume_dataset
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.storage.whole_file import write_whole
from fcnseg.training.callbacks import HistoryFile, KeepBest, Validation
from fcnseg.training.checkpoints import Checkpoints, RunProgress
from fcnseg.training.compiled_model import build_compiled, make_state, state_of
from fcnseg.training.dataset_checks import organs_to_learn
from fcnseg.training.ema import Average, OptimizerAverage, WeightAverage
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.lost_organs import LostOrgans
from fcnseg.training.optimizer import first_average_step, keeps_average, restart_slots
from fcnseg.training.preemption import StopRequest
from fcnseg.training.pretrained import load_pretrained
from fcnseg.training.provenance import Provenance
from fcnseg.training.setting_checks import ignore_label
from fcnseg.training.step import TrainingStep
from fcnseg.training.strategy import make_strategy
from fcnseg.training.tensorboard import TensorBoardEvents
from fcnseg.training.validation_loss import make_validation_loss


def make_loop(
    config: Config, provenance: Provenance, run_dir: Path, *, devices: Sequence[str] = ()
) -> TrainingLoop:
    """Builds all parts of a run, and writes its description to the run folder.

    Args:
        config: All settings.
        provenance: Dataset, fold and initial weights of the run; the weights are used only if there
            is no checkpoint.
        run_dir: The run's folder, which exists.
        devices: Devices as `make_strategy` takes them.

    Raises:
        InputError: If `provenance.init_from` is not a finished run of such a network, or there are
            no such devices.
        ModelError: If the patches do not fit the network.
    """
    dataset, fold = provenance.dataset, provenance.fold
    info = dataset.info
    model = build_model(config, info, devices=devices)
    if provenance.init_from is not None and not (run_dir / CHECKPOINT_FILE).exists():
        load_pretrained(model, provenance.init_from, config.model)
        restart_slots(model, config.training)
    stop = StopRequest()
    replicas = model.distribute_strategy.num_replicas_in_sync
    network = full_resolution(model)
    average = make_average(config, model)
    events = _make_events(config, info, run_dir, replicas=replicas)
    model_info = make_model_info(config, info)
    validation = Validation(
        make_segmenter(network, model_info),
        make_volume_dataset(dataset, "validation", fold=fold),
        every=config.training.validate_every,
        stop=stop,
        ignore_label=ignore_label(config, info),
        on_case=None if events is None else events.see_case,
        loss=make_validation_loss(model, config, dataset, fold=fold),
    )
    write_config(config, run_dir / CONFIG_FILE)  # first: only with it is the folder that of a run
    write_whole(run_dir / MODEL_INFO_FILE, model_info.to_json())
    dices = [column.removeprefix("val_") for column in validation.columns]  # memory of OrganDice
    now = datetime.datetime.now(datetime.timezone.utc)
    return TrainingLoop(
        step=make_step(config, model, info),
        make_patches=patches_maker(config, dataset, replicas=replicas, fold=fold),
        settings=config.training,
        checkpoints=Checkpoints(
            run_dir / CHECKPOINT_FILE,
            [*state_of(model), *average.averages],
            model.distribute_strategy,
            {**provenance.identity(), "devices": replicas, "keras": LINE},
        ),
        validation=validation,
        lost=LostOrgans(organs_to_learn(dataset, fold=fold), config),
        best=KeepBest(run_dir / BEST_MODEL_FILE, network),
        history=HistoryFile(
            run_dir / HISTORY_FILE, ["loss", *dices, "val_loss", *validation.columns]
        ),
        events=events,
        average=average,
        stop=stop,
        progress=RunProgress(started=now.isoformat(timespec="seconds")),
    )


def build_model(config: Config, info: DatasetInfo, *, devices: Sequence[str] = ()) -> keras.Model:
    """Builds the compiled network on its devices, with all the state that training changes.

    The global random generators of Python, numpy and Keras are set to the configuration's seed.

    Args:
        config: All settings, checked by `check_settings` for the dataset and devices.
        info: Manifest of the dataset.
        devices: Devices as `make_strategy` takes them; by default all.

    Raises:
        ConfigError: If the loss and the dataset ignore different classes.
        InputError: If there are no such devices.
        ModelError: If the patches do not fit the network.
    """
    size, label_size = config.patches.size, output_shape(config.model, config.patches.size)
    keras.utils.set_random_seed(config.training.seed)
    strategy = make_strategy(devices)
    ignoring = override(config, {"loss.ignore_label": ignore_label(config, info)})
    with strategy.scope():
        model = build_compiled(ignoring, class_names=info.class_names)
        make_state(model, size=size, label_size=label_size)
    return model


def make_step(config: Config, model: keras.Model, info: DatasetInfo) -> TrainingStep:
    """Makes the training step of a model that `build_model` built."""
    size, label_size = config.patches.size, output_shape(config.model, config.patches.size)
    return TrainingStep(
        model,
        Augmentation(config.augmentation, size, label_size, info.spacing_mm),
        micro_batches=config.training.accumulate_steps,
        clip_norm=config.training.clip_norm,
    )


def make_average(config: Config, model: keras.Model) -> Average:
    """Makes the average of the weights of a model that `build_model` built."""
    if keeps_average(config.training):
        return OptimizerAverage(model, first_step=first_average_step(config.training))
    return WeightAverage(
        tensorflow_variables(full_resolution(model).weights),
        decay=config.training.ema_decay,
        strategy=model.distribute_strategy,
    )


def _make_events(
    config: Config, info: DatasetInfo, run_dir: Path, *, replicas: int
) -> TensorBoardEvents | None:
    if not config.training.tensorboard:
        return None
    return TensorBoardEvents(
        run_dir / TENSORBOARD_FOLDER,
        info.class_names,
        patches_per_step=patches_per_step(config, replicas=replicas),
        ignore_label=ignore_label(config, info),
    )


def patches_maker(
    config: Config, dataset: Dataset, *, replicas: int, fold: Fold | None = None
) -> Callable[..., tf.data.Dataset]:
    """Makes `make_training_dataset` of a run, with only the start step left open.

    Args:
        config: All settings.
        dataset: A finished dataset.
        replicas: Devices that share each batch.
        fold: Fold that reassigns the cases for training and for validation.
    """
    return functools.partial(
        make_training_dataset,
        dataset,
        config.patches,
        seed=config.training.seed,
        augmentation=config.augmentation,
        fold=fold,
        num_replicas=replicas * config.training.accumulate_steps,
        label_size=output_shape(config.model, config.patches.size),
    )


def patches_per_step(config: Config, *, replicas: int) -> int:
    """Number of patches on all replicas together per step of the optimizer."""
    return config.patches.batch_size * config.training.accumulate_steps * replicas


def make_model_info(config: Config, data: DatasetInfo) -> ModelInfo:
    """Makes the model info that is stored with a network trained on a dataset."""
    return ModelInfo(
        class_names=data.class_names,
        spacing_mm=data.spacing_mm,
        hu_window=config.model.hu_window,
        window=config.patches.size,
        overlap=config.inference.overlap,
        batch_size=config.inference.batch_size,
        max_voxels=config.inference.max_voxels,
        skip_air=config.inference.skip_air,
    )
