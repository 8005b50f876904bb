"""Trains a network on records: `fcnseg train --help`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.cli.quiet import load_tensorflow


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Trains a network on one or more devices and keeps the one that validates best."""

    config: ConfigFlags
    """Configuration; each flag overrides one of its values."""
    data: Location
    """Folder of records that `fcnseg convert` wrote. Those of an object store, such as
    s3://bucket/records, are copied to the folder that FCNSEG_CACHE names, by default
    ~/.cache/fcnseg, where the next run finds them."""
    run_dir: Path
    """Folder for the network, its history and the manifest of the run, always on this machine;
    must be empty or new."""
    resume: bool = False
    """Resumes the run in that folder as if it had not stopped; begins a new run if there is
    none."""
    init_from: Path | None = None
    """Folder of a finished run whose best weights initialise this one: fine-tuning."""
    fold: int | None = None
    """Validation fold of a cross-validation, from 0; the other folds train."""
    folds: int | None = None
    """Number of folds to which the patients for training and for validation are assigned."""
    devices: tuple[str, ...] = ()
    """Number of GPUs, or their names, such as GPU:0 GPU:2; by default all. Without a GPU: CPUs."""

    def run(self) -> None:
        """Trains the network."""
        load_tensorflow()
        # --help need not wait for these.
        from fcnseg.records import Fold
        from fcnseg.training import train

        train(
            self.config,
            self.data,
            self.run_dir,
            resume=self.resume,
            init_from=self.init_from,
            fold=Fold.of(self.fold, self.folds),
            devices=self.devices,
        )
