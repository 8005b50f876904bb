"""A finished run, opened once and then passed on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run_folder import BEST_MODEL_FILE, RunManifest, read_run


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a finished training, with its manifest and model info.

    Attributes:
        folder: The folder.
        manifest: Settings, data and results of the run.
        info: Facts of the network that prediction needs.
    """

    folder: Path
    manifest: RunManifest
    info: ModelInfo

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Reads the manifest and model info of a run; the network is not loaded.

        Raises:
            InputError: If the folder is missing, or contains no finished run.
        """
        return cls(Path(folder), read_run(folder), ModelInfo.read(folder))

    @property
    def network_path(self) -> Path:
        """The file of the best network."""
        return self.folder / BEST_MODEL_FILE

    def network_digest(self) -> str:
        """SHA-256 of the file of the best network.

        Raises:
            InputError: If the file cannot be read.
        """
        try:
            return hashlib.sha256(self.network_path.read_bytes()).hexdigest()
        except OSError as error:
            reason = f"{self.network_path}: {one_line(error)}"
            raise InputError(f"incomplete or corrupt network: {reason}") from error
