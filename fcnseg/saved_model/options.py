"""Settings of an export, which need no TensorFlow."""

from __future__ import annotations

import dataclasses

from fcnseg.conversion.check_options import CheckOptions
from fcnseg.errors import InputError
from fcnseg.networks.precision import Precision
from fcnseg.saved_model.model_card import INTENDED_USE
from fcnseg.volumes import Axis, Shape


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Settings of an export; by default those of the run.

    Attributes:
        precision: Precision of the layers between the HU window and the logits; inputs and outputs
            are float32 in any.
        overlap: Voxels (z, y, x) by which neighbouring windows overlap at least.
        flips: Axes whose flips are averaged too, each of which doubles the work.
        max_memory_gib: Memory of a server's process that one request may need; larger volumes are
            refused. By default the run's `inference.max_voxels` is the only limit.
        accept: Codes of `fcnseg.codes.ACCEPTABLE`: implausible images that `segment_nifti` does not
            refuse.
        keep: Number of versions to keep; older ones are deleted. By default all are kept.
        intended_use: Intended use, for the model card.
    """

    precision: Precision | None = None
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
        if self.max_memory_gib is not None and not self.max_memory_gib > 0:
            raise InputError(f"max_memory_gib must be positive, got {self.max_memory_gib}")
        if self.keep is not None and self.keep < 1:
            raise InputError(f"keep must be 1 or more, got {self.keep}")
