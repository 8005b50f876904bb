"""Publishes a trained network for TensorFlow Serving: `fcnseg export --help`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fcnseg.cli.command import run_command
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.networks.precision import Precision
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
    precision: Precision | None = None
    """Precision of the network's layers, by default that of training; inputs and outputs are
    float32."""
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
            precision=self.precision,
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
