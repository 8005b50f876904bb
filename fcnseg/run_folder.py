"""The folder of a run: what lies in it, and whether it is whole. No TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

import pydantic

from fcnseg.config import Config
from fcnseg.errors import InputError, first_finding
from fcnseg.whole_file import write_whole

CONFIG_FILE = "config.yaml"
BEST_MODEL_FILE = "best.keras"
HISTORY_FILE = "history.csv"
MANIFEST_FILE = "run.json"
"""Written last: a folder without it is not a finished run."""


@dataclasses.dataclass(frozen=True)
class RunManifest:
    """What ran, on what, and how it ended.

    Attributes:
        best_dice: Validation Dice, mean over organs, of `best.keras`.
        best_epoch: After which it was reached, from 1.
        parameters: Trainable parameters of the network.
        versions: Of fcnseg, tensorflow, keras, numpy and python.
        devices: One a replica.
        data: Folder of the records.
        data_fingerprint: SHA-256 of their manifest, which holds the checksum of every file.
        config: All settings; the seed is one of them.
        started: UTC, ISO 8601.
        seconds: Wall time of the whole run.
        validation_seconds: The part of it that validation took.
        status: That the run is whole.
    """

    best_dice: float
    best_epoch: int
    parameters: int
    versions: dict[str, str]
    devices: tuple[str, ...]
    data: str
    data_fingerprint: str
    config: Config
    started: str
    seconds: float
    validation_seconds: float
    status: Literal["completed"] = "completed"

    def write(self, run_dir: Path) -> None:
        """Writes the manifest, whole or not at all."""
        text = pydantic.TypeAdapter(RunManifest).dump_json(self, indent=2)
        write_whole(run_dir / MANIFEST_FILE, text.decode() + "\n")


def make_run_folder(run_dir: str | os.PathLike[str]) -> Path:
    """Makes the folder of a new run.

    Raises:
        InputError: If something is there already.
    """
    folder = Path(run_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run_dir must be a folder, got {folder}")
    if folder.exists() and any(folder.iterdir()):
        state = "a finished run" if (folder / MANIFEST_FILE).exists() else "other files"
        raise InputError(f"run_dir must be new or empty, got {folder} with {state} in it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_run(run_dir: str | os.PathLike[str]) -> RunManifest:
    """Reads the manifest of a finished run.

    Raises:
        InputError: If the folder is missing, or holds no finished run.
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
