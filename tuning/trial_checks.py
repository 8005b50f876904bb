"""Checks that the training of each trial makes at its start, made before the first trial."""

from __future__ import annotations

from collections.abc import Sequence

from fcnseg.config import Config
from fcnseg.records import DatasetInfo
from fcnseg.training.half_precision import check_known_errors
from fcnseg.training.setting_checks import check_devices, check_settings_for

from .workers import Share


def check_trial(config: Config, info: DatasetInfo, *, devices: Sequence[str] = ()) -> None:
    """Checks that a trial with a configuration can train.

    Args:
        config: Configuration of the trial.
        info: Manifest of the dataset.
        devices: Names of the devices of its worker, which are not used; empty if unknown, as on the
            chief of a search on several machines.

    Raises:
        ConfigError: If it cannot.
    """
    check_settings_for(config, info)
    if devices:
        check_devices(config, devices)
        check_known_errors(config, devices[0], num_classes=info.num_classes)


def devices_of(share: Share) -> list[str]:
    """Gives the names that the devices of a share have in the process of a trial."""
    return [f"GPU:{number}" for number in range(len(share.gpus or ()))] or ["CPU:0"]
