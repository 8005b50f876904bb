"""Withdraws the newest version of a served model: `fcnseg rollback --help`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fcnseg.cli.command import run_command
from fcnseg.saved_model.versions import roll_back


@dataclasses.dataclass(frozen=True)
class RollbackCommand:
    """Withdraws the newest version of a served model, so that servers go back to the one before."""

    model_dir: Path
    """The served model's base folder. The version is renamed to rolled_back_N, and its number is
    not used again."""

    def run(self) -> None:
        """Renames the folder of the newest version."""
        roll_back(self.model_dir)


def main() -> None:
    """Runs the command."""
    run_command(RollbackCommand)


if __name__ == "__main__":
    main()
