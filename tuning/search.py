"""Searches for a configuration with a high objective: `fcnseg search --help`.

The processes of trials import the module of the command again; so it imports the rest when it runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from fcnseg.cli.command import ConfigFlags, Location, run_command
from fcnseg.cli.quiet import quiet_stderr
from fcnseg.extras import naming_extras


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """Searches for a configuration: trains with settings from a search space, keeps the best.

    The same command resumes a search that was stopped or killed. With KERASTUNER_ORACLE_IP,
    KERASTUNER_ORACLE_PORT and KERASTUNER_TUNER_ID set, it is the chief or a worker of a search on
    several machines.
    """

    data: Location
    """Folder of records that `fcnseg convert` wrote, which may be in an object store."""
    config: ConfigFlags
    """Base configuration, for all that is not searched; each flag overrides one of its values."""
    space: Path
    """YAML file: dotted keys with {choice: [..]}, {float: [low, high], log: true} or {int: ..}, and
    `when` for conditions; or the name of a space of fcnseg, quick or thorough."""
    output: Path
    """Folder for trials/, trials.json and, written last, best.yaml."""
    max_trials: int | None = None
    """Maximum number of settings, the base configuration among them. Grid and Hyperband end by
    themselves, the others need this or max_hours."""
    max_hours: float | None = None
    """Hours after which no trial begins, without the time that the search was stopped."""
    tuner: Literal["random", "bayesian", "grid", "hyperband"] = "random"
    """Settings at random, near good ones, all there are, or many for a few epochs of which the best
    go on."""
    objective: str = "val_dice"
    """Score to maximise: val_dice, val_surface_dice, or that of an organ, as val_dice_liver."""
    seed: int = 0
    """Seed of the draws; the seed of each training is training.seed."""
    workers: int = 1
    """Trials at a time on this machine, each on its own GPUs, or its share of the cores; for a
    search on several machines that of tuning.supervisor."""
    devices: tuple[str, ...] = ()
    """GPUs to use, as their number or as GPU:0 GPU:2; by default all."""
    retry_failed: bool = False
    """Run the trials again that failed, as after a repair of the machine."""

    def run(self) -> None:
        """Searches, shows the trials and writes the best configuration."""
        with quiet_stderr(), naming_extras():
            from .running import run_search
        run_search(self)


def main() -> None:
    """Runs the command line."""
    run_command(SearchCommand)


if __name__ == "__main__":
    main()
