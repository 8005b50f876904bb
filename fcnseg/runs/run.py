"""A finished run, opened once and then passed on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Literal

from fcnseg.errors import InputError, one_line
from fcnseg.runs.history import read_history
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.published_network import PUBLISHED_FILE, PublishedNetwork
from fcnseg.runs.run_folder import (
    BEST_MODEL_FILE,
    HISTORY_FILE,
    OPENVINO_FILES,
    RunManifest,
    read_run,
)


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
    def is_of_float16(self) -> bool:
        """True if the network was trained in float16, in which a GPU alone computes."""
        return self.manifest.config.training.precision == "mixed_float16"

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Precision in which the network predicts on a CPU unless another is asked for.

        Raises:
            InputError: If the description of a version for OpenVINO is missing or broken.
        """
        if self.is_for_openvino:
            return PublishedNetwork.read(self.folder).precision
        is_half = self.manifest.config.training.precision == "mixed_bfloat16"
        return "bfloat16" if is_half else "float32"

    @property
    def network_path(self) -> Path:
        """The file of the best network, or of its graph if it is one of OpenVINO."""
        return self._network_files[0]

    @property
    def _network_files(self) -> list[Path]:
        names = OPENVINO_FILES if self.is_for_openvino else (BEST_MODEL_FILE,)
        return [self.folder / name for name in names]

    def organ_dice(self) -> dict[str, float]:
        """Validation Dice of each organ in the best epoch, without those that no case has.

        A version that was published for OpenVINO has no history, and so gives none.

        Raises:
            InputError: If the history is broken.
        """
        path = self.folder / HISTORY_FILE
        rows = read_history(path) if path.exists() else []
        best = next((row for row in rows if row.get("epoch") == self.manifest.best_epoch), {})
        columns = {name: f"val_dice_{name}" for name in self.info.class_names[1:]}
        return {name: best[column] for name, column in columns.items() if column in best}

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

    def check_published(self) -> None:
        """Checks that the files of a version for OpenVINO are those that were published.

        Raises:
            InputError: If they are not, or one is missing.
        """
        if self.network_digest() != PublishedNetwork.read(self.folder).sha256:
            raise InputError(
                f"incomplete or corrupt network: {self.network_path}: its SHA-256 is not that in"
                f" {PUBLISHED_FILE}; restore an intact copy, or export it again"
            )
