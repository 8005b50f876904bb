"""Checks of settings against the dataset and the devices, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from fcnseg.config import Config, LossConfig
from fcnseg.errors import ConfigError
from fcnseg.networks.addons import find_class
from fcnseg.records import DatasetInfo, Fold
from fcnseg.training.optimizer import optimizer_classes
from fcnseg.training.strategy import device_names
from fcnseg.volumes import LabelMap


def check_settings(
    config: Config, info: DatasetInfo, *, fold: Fold | None = None, devices: Sequence[str] = ()
) -> None:
    """Checks that a configuration can train on a dataset with some devices.

    Args:
        config: All settings.
        info: Manifest of the dataset.
        fold: Fold that reassigns the cases for training and for validation.
        devices: Devices as `make_strategy` takes them.

    Raises:
        ConfigError: If the devices cannot compute as configured, this line of Keras has no such
            optimizer, the loss and the dataset ignore
            different classes, or the loss has other classes than the dataset or none with a weight.
        InputError: If there are no such devices.
    """
    check_devices(config, device_names(devices))
    check_settings_for(config, info, fold=fold)


def check_settings_for(config: Config, info: DatasetInfo, *, fold: Fold | None = None) -> None:
    """Checks that a configuration can train on a dataset, as `check_settings`, on any devices.

    Raises:
        ConfigError: If this line of Keras has no such optimizer, or the settings do not fit the
            dataset.
    """
    optimizer_classes(config.training)
    if config.augmentation.deformation_of == "polyharmonic":
        find_class("augmentation.deformation_of", "polyharmonic")
    if config.model.coarse_input:
        raise ConfigError(
            "model.coarse_input must be false in training, as records hold no coarse prediction"
        )
    ignored = ignore_label(config, info)
    _check_number_of_weights(config.loss, info.class_names)
    present = [index for index in _classes_to_train_on(info, fold) if index != ignored]
    if ignored is not None and len(present) < 2:
        left = ", ".join(info.class_names[index] for index in present) or "no class"
        raise ConfigError(
            f"loss.ignore_label must leave two classes to tell apart, got {ignored}, which leaves"
            f" {left} of what there is to train on"
        )
    if not any(config.loss.counts(index) for index in present):
        names = ", ".join(info.class_names[index] for index in present)
        raise ConfigError(
            "loss.class_weights must not be 0 for all classes that there are to train on,"
            f" {names}, got {config.loss.class_weights}"
        )


def check_devices(config: Config, names: Sequence[str]) -> None:
    """Checks that devices can compute as configured.

    Args:
        config: All settings.
        names: Names of the devices, such as `GPU:0`.

    Raises:
        ConfigError: If they cannot.
    """
    if config.training.jit_compile and len(names) > 1:
        raise ConfigError(f"training.jit_compile is for one device, got {len(names)}")
    if config.training.precision == "mixed_float16" and names[0].startswith("CPU"):
        raise ConfigError(
            "training.precision must be float32 or mixed_bfloat16 on a CPU, which does not pool"
            f" float16, got mixed_float16 on {', '.join(names)}"
        )


def ignore_label(config: Config, info: DatasetInfo) -> int | None:
    """Gives the class index of voxels to ignore, from the label map or the loss.

    Raises:
        ConfigError: If the two differ, or the dataset has no such class.
    """
    of_data, of_loss = LabelMap.from_mapping(info.label_map).ignore_label, config.loss.ignore_label
    if of_data is None and of_loss is not None and of_loss >= info.num_classes:
        raise ConfigError(
            f"loss.ignore_label must be the index of a class, 0 to {info.num_classes - 1}, got"
            f" {of_loss}"
        )
    if of_data is not None and of_loss not in (None, of_data):
        raise ConfigError(
            f"loss.ignore_label must be left alone, or {of_data} as the dataset's label map has it,"
            f" got {of_loss}"
        )
    return of_loss if of_data is None else of_data


def _classes_to_train_on(info: DatasetInfo, fold: Fold | None) -> list[int]:
    """The indices of classes in the cases; with folds, validation cases train in other folds."""
    splits = ("train",) if fold is None else ("train", "validation")
    histograms = [
        info.splits[split].class_histogram for split in splits if info.splits[split].cases
    ]
    return [index for index in range(info.num_classes) if any(each[index] for each in histograms)]


def _check_number_of_weights(loss: LossConfig, class_names: Sequence[str]) -> None:
    weights = loss.class_weights
    if not isinstance(weights, str) and len(weights) != len(class_names):
        raise ConfigError(
            f"loss.class_weights must be {len(class_names)} numbers, for"
            f" {', '.join(class_names)}, got {weights}"
        )
