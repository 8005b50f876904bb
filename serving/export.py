"""Publishes a trained network for TensorFlow Serving: `fcnseg export --help`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fcnseg.cli.command import run_command
from fcnseg.saved_model.export import export_run


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Publishes the best network of a finished training run as the next version of a model."""

    run_dir: Path
    """Folder of a finished training run."""
    model_dir: Path
    """The served model's base folder; its children are the versions 1, 2, …"""

    def run(self) -> None:
        """Writes the model, checks it in the server's runtime, and publishes it."""
        export_run(self.run_dir, self.model_dir)


def main() -> None:
    """Runs the command."""
    run_command(ExportCommand)


if __name__ == "__main__":
    main()
