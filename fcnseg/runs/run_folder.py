"""The folder of a run: its files, and that it is complete. No TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from fcnseg.config import Config, config_to_mapping, override, read_config
from fcnseg.errors import InputError, first_finding, format_names
from fcnseg.storage.file_systems import UNFINISHED
from fcnseg.storage.folder_lock import LOCK_FILE
from fcnseg.storage.whole_file import make_folder, write_whole

CONFIG_FILE = "config.yaml"
BEST_MODEL_FILE = "best.keras"
OPENVINO_FILES = ("network.xml", "network.bin")
"""Graph and weights of a network for OpenVINO, which a published version has instead."""
HISTORY_FILE = "history.csv"
TENSORBOARD_FOLDER = "tensorboard"
CHECKPOINT_FILE = "checkpoint.npz"
"""File that an unfinished run needs to resume."""
FINAL_STATE_FILE = "final_state.npz"
"""The checkpoint of a finished run, from which it can be extended."""
MANIFEST_FILE = "run.json"
"""Written last: a folder without it is not a finished run."""

_DIGEST = pydantic.AliasChoices("data_digest", "data_fingerprint")  # the second in earlier runs


@dataclasses.dataclass(frozen=True)
class RunManifest:
    """Settings, data and results of a run.

    Attributes:
        best_dice: Validation Dice, mean over organs, of `best.keras`.
        best_epoch: Epoch after which it was reached, from 1.
        parameters: Trainable parameters of the network.
        weights_sha256: SHA-256 of the weights after the last step, `best.keras` or not: runs with
            identical training have the same.
        versions: Versions of fcnseg, tensorflow, keras, numpy and python.
        devices: Devices, one per replica.
        data: Folder of the records.
        data_digest: SHA-256 of their manifest, which contains the checksum of every file.
        config: All settings; the seed is one of them.
        started: Start time, UTC, ISO 8601.
        seconds: Wall time of the complete run, without the time between a stop and its resumption.
        validation_seconds: Wall time of validation within it.
        init_from: Folder of the run whose weights initialised this one; None for random initial
            weights.
        fold: Number of the fold, from 0, in a cross-validation.
        folds: Number of folds.
        validation_cases: The ids of the validation cases.
        lost_organs: Organs whose Dice was about 0 in the best epoch, over the validation cases that
            have them.
        status: Marks a complete run.
    """

    best_dice: float
    best_epoch: int
    parameters: int
    weights_sha256: str
    versions: dict[str, str]
    devices: tuple[str, ...]
    data: str
    data_digest: Annotated[str, pydantic.Field(validation_alias=_DIGEST)]
    config: Config
    started: str
    seconds: float
    validation_seconds: float
    init_from: str | None = None
    fold: int | None = None
    folds: int | None = None
    validation_cases: tuple[str, ...] = ()
    lost_organs: tuple[str, ...] = ()
    status: Literal["completed"] = "completed"

    def write(self, run_dir: Path) -> None:
        """Writes the manifest atomically."""
        text = pydantic.TypeAdapter(RunManifest).dump_json(self, indent=2)
        write_whole(run_dir / MANIFEST_FILE, text.decode() + "\n")


def make_run_folder(
    run_dir: str | os.PathLike[str], config: Config, *, resume: bool = False
) -> Path:
    """Makes the folder of a new run, or opens that of a run to resume.

    Args:
        run_dir: The folder.
        config: Configuration of the run.
        resume: True if the folder may contain a run already, finished or not.

    Raises:
        InputError: If it cannot be created or written to, it is not empty, or its run has another
            configuration; a finished one may get more epochs.
    """
    folder = make_folder(run_dir, argument="run_dir")
    if resume:
        _delete_unfinished(folder)
    if resume and (folder / CONFIG_FILE).exists():
        if not (folder / CONFIG_FILE).stat().st_size:  # an empty YAML file is all defaults
            raise InputError(
                f"{folder / CONFIG_FILE} is empty: write the run's settings to it again"
            )
        then = read_config(folder / CONFIG_FILE)
        if (folder / MANIFEST_FILE).exists() and is_extended(then, config):
            then = override(then, {"training.epochs": config.training.epochs})
        now = config_to_mapping(config)
        check_same(config_to_mapping(then), now, what=f"the run in {folder}")
        return folder
    if any(path.name != LOCK_FILE for path in folder.iterdir()):
        state = "a finished run" if (folder / MANIFEST_FILE).exists() else "other files"
        if not resume and (folder / CHECKPOINT_FILE).exists():
            state = "an unfinished run (--resume continues it)"
        raise InputError(f"run_dir must be new or empty, got {folder} with {state} in it")
    return folder


def _delete_unfinished(folder: Path) -> None:
    """Deletes what a killed process left in the folder of a run, and in no other folder."""
    names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    if CONFIG_FILE not in names and not all(name.startswith(UNFINISHED) for name in names):
        return
    for place in (folder, folder / TENSORBOARD_FOLDER):
        for unfinished in place.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished)


def is_extended(then: Config, now: Config) -> bool:
    """Tells whether a configuration has more epochs than the one that a run finished with."""
    return now.training.epochs > then.training.epochs


def check_same(then: dict[str, Any], now: dict[str, Any], *, what: str) -> None:
    """Checks that a resumed job has its original settings.

    Args:
        then: Original settings by name; mappings in them are compared name by name.
        now: Present settings.
        what: Name of the job, for the error.

    Raises:
        InputError: If they differ; the message names the difference.
    """
    findings = find_differences(then, now)
    if findings:
        raise InputError(f"resume needs what {what} began with: {format_names(findings)}")


def find_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Lists the settings that differ, each with both values; see `check_same`."""
    then, now = _flat(then), _flat(now)
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return [f"{name} was {then.get(name)}, got {now.get(name)}" for name in names]


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by dotted key."""
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        values |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return values


def read_run(run_dir: str | os.PathLike[str]) -> RunManifest:
    """Reads the manifest of a finished run.

    Raises:
        InputError: If the folder is missing, or contains no finished run.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise InputError(f"no such run folder: {folder}")
    try:
        text = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise InputError(f"{folder} is not a finished run: {MANIFEST_FILE} is missing") from error
    try:
        return pydantic.TypeAdapter(RunManifest).validate_json(text)
    except pydantic.ValidationError as error:
        finding = first_finding(error)
        raise InputError(f"{folder / MANIFEST_FILE} is not a run manifest: {finding}") from error
