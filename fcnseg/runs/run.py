"""A finished run, opened once and then passed on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run_folder import BEST_MODEL_FILE, OPENVINO_FILES, RunManifest, read_run


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a finished training, with its manifest and model info.

    A version that was published for OpenVINO is one too, whose network only OpenVINO computes.

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
    def is_for_openvino(self) -> bool:
        """True if the network is one of OpenVINO."""
        return (self.folder / OPENVINO_FILES[0]).exists()

    @property
    def network_path(self) -> Path:
        """The file of the best network, or of its graph if it is one of OpenVINO."""
        return self._network_files[0]

    @property
    def _network_files(self) -> list[Path]:
        names = OPENVINO_FILES if self.is_for_openvino else (BEST_MODEL_FILE,)
        return [self.folder / name for name in names]

    def network_digest(self) -> str:
        """SHA-256 of the files of the best network.

        Raises:
            InputError: If one cannot be read.
        """
        path = self.network_path
        try:
            contents = [path.read_bytes() for path in self._network_files]
        except OSError as error:
            raise InputError(f"incomplete or corrupt network: {path}: {one_line(error)}") from error
        return hashlib.sha256(b"".join(contents)).hexdigest()
