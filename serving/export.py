"""Publishes a trained network for TensorFlow Serving: `fcnseg export --help`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from fcnseg.cli.command import Location, run_command
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.inference.backend import Backend
from fcnseg.networks.precision import ExportPrecision
from fcnseg.saved_model.model_card import INTENDED_USE
from fcnseg.saved_model.options import ExportOptions
from fcnseg.volumes import Axis, Shape


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Publishes the best network of a finished training run as the next version of a model."""

    run_dir: tuple[Path, ...]
    """Folder of a finished training run; the probabilities of several runs are averaged."""
    model_dir: Path
    """The served model's base folder; its children are the versions 1, 2, …"""
    backend: Backend = "tensorflow"
    """Runtime that the version is for; for OpenVINO it is the network of one run, which OpenVINO
    Model Server and fcnseg predict take."""
    precision: ExportPrecision | None = None
    """Precision of the network's layers, by default that of training; int8 is for OpenVINO alone.
    Inputs and outputs are float32."""
    data: Location | None = None
    """Records of the run, for int8; by default where they were in training."""
    calibration_windows: int = 64
    """Windows of the training split on which the ranges of int8 are measured."""
    max_dice_loss: float = 0.005
    """Validation Dice that int8 may lose of an organ; with more, nothing is published."""
    overlap: Shape | None = None
    """Overlap of windows in voxels (z, y, x), by default that of the run."""
    flips: tuple[Axis, ...] = ()
    """Axes whose flips are averaged too; each doubles the time."""
    max_memory_gib: float | None = None
    """Memory that a server may need for one request; larger volumes are refused. By default the
    run's inference.max_voxels is the only limit."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings that segment_nifti does not refuse."""
    keep: int | None = None
    """Versions to keep; older ones are deleted. By default all are kept."""
    intended_use: str = INTENDED_USE
    """Intended use, for the model card."""

    def run(self) -> None:
        """Writes the model, checks it in the server's runtime, and publishes it."""
        options = ExportOptions(
            backend=self.backend,
            precision=self.precision,
            data=None if self.data is None else os.fspath(self.data),
            calibration_windows=self.calibration_windows,
            max_dice_loss=self.max_dice_loss,
            overlap=self.overlap,
            flips=self.flips,
            max_memory_gib=self.max_memory_gib,
            accept=self.accept,
            keep=self.keep,
            intended_use=self.intended_use,
        )
        load_tensorflow()
        from fcnseg.saved_model.export import export_run  # --help need not wait for it

        export_run(self.run_dir, self.model_dir, options=options)


def main() -> None:
    """Runs the command."""
    run_command(ExportCommand)


if __name__ == "__main__":
    main()
