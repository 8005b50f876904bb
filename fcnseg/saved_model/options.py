"""Settings of an export, which need no TensorFlow."""

from __future__ import annotations

import dataclasses
import math

from fcnseg.conversion.check_options import CheckOptions
from fcnseg.errors import InputError
from fcnseg.inference.backend import Backend
from fcnseg.networks.precision import ExportPrecision, Precision
from fcnseg.saved_model.model_card import INTENDED_USE
from fcnseg.volumes import Axis, Shape


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Settings of an export; by default those of the run.

    Attributes:
        backend: Runtime that the export is for; for OpenVINO it is the network alone, so
            `max_memory_gib` and `accept` do not apply.
        precision: Precision of the layers between the HU window and the logits; inputs and outputs
            are float32 in any. Files for OpenVINO are in float32 or int8, and the precision is that
            in which fcnseg predicts by default.
        data: Folder of the records that the run was trained on, for int8; by default the one that
            the run names.
        calibration_windows: Windows of the training split that the ranges of int8 are measured on.
        max_dice_loss: Validation Dice that int8 may lose of an organ.
        overlap: Voxels (z, y, x) by which neighbouring windows overlap at least.
        flips: Axes whose flips are averaged too, each of which doubles the work.
        max_memory_gib: Memory of a server's process that one request may need; larger volumes are
            refused. By default the run's `inference.max_voxels` is the only limit.
        accept: Codes of `fcnseg.codes.ACCEPTABLE`: implausible images that `segment_nifti` does not
            refuse.
        keep: Number of versions to keep; older ones are deleted. By default all are kept.
        intended_use: Intended use, for the model card.
    """

    backend: Backend = "tensorflow"
    precision: ExportPrecision | None = None
    data: str | None = None
    calibration_windows: int = 64
    max_dice_loss: float = 0.005
    overlap: Shape | None = None
    flips: tuple[Axis, ...] = ()
    max_memory_gib: float | None = None
    accept: tuple[str, ...] = ()
    keep: int | None = None
    intended_use: str = INTENDED_USE

    def __post_init__(self) -> None:
        CheckOptions(accept=self.accept)
        if len(set(self.flips)) < len(self.flips):
            raise InputError(f"flips must name each axis once, got {' '.join(self.flips)}")
        if self.max_memory_gib is not None and not 0 < self.max_memory_gib < math.inf:
            raise InputError(
                f"max_memory_gib must be positive and finite, got {self.max_memory_gib}"
            )
        if self.keep is not None and self.keep < 1:
            raise InputError(f"keep must be 1 or more, got {self.keep}")
        self._check_backend()
        self._check_int8()

    @property
    def precision_of_layers(self) -> Precision | None:
        """Precision of TensorFlow's layers; None means that of the run."""
        return None if self.precision == "int8" else self.precision

    def _check_backend(self) -> None:
        if self.precision == "int8" and self.backend != "openvino":
            raise InputError(f"precision int8 needs the backend openvino, got {self.backend}")
        for name in ("flips", "max_memory_gib", "accept"):
            if self.backend == "openvino" and getattr(self, name):
                raise InputError(f"{name} does not apply to the backend openvino")

    def _check_int8(self) -> None:
        if self.data is not None and self.precision != "int8":
            raise InputError(f"data applies to the precision int8 alone, got {self.data}")
        if self.calibration_windows < 1:
            raise InputError(
                f"calibration_windows must be 1 or more, got {self.calibration_windows}"
            )
        if not 0 <= self.max_dice_loss <= 1:
            raise InputError(f"max_dice_loss must be 0 to 1, got {self.max_dice_loss}")
