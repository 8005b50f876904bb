"""Segments a CT volume with a served model: `python -m serving.client --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from fcnseg.cli.command import run_command
from fcnseg.client import SegmentationClient
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import CaseError, explain
from fcnseg.errors import InputError
from fcnseg.evaluation.class_names import workbench_table
from fcnseg.storage.whole_file import check_free, folder_for_output
from fcnseg.volumes import Volume, case_id_of, check_nifti_name, write_mask

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ClientCommand:
    """Segments a CT volume with a served model and writes the mask."""

    server: str
    """HOST:PORT of the server's gRPC interface."""
    image: Path
    """A CT volume of any format (docs/formats.md)."""
    output: Path
    """Mask to write, on exactly the grid of the image."""
    model_name: str = "fcnseg"
    """Name of the model on the server."""
    overwrite: bool = False
    """Replace a mask that exists already."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""

    def run(self) -> None:
        """Reads the image, sends it, and writes the mask."""
        check_free([self.output], overwrite=self.overwrite)
        check_nifti_name(self.output)
        with folder_for_output(self.output.parent):
            names = self._segment()
        logger.info("wrote %s with %s", self.output, ", ".join(names))

    def _segment(self) -> tuple[str, ...]:
        """Writes the mask, and gives the names of its classes."""
        volume = self._read()
        with SegmentationClient(self.server, model_name=self.model_name) as client:
            names = client.model_info().class_names
            mask = client.segment(volume, accept=self.accept)
        write_mask(mask, self.output, like=volume, label_table=workbench_table(names))
        return names

    def _read(self) -> Volume:
        """Reads the image, if it can be a CT.

        Raises:
            InputError: If it cannot be read, or cannot be a CT.
        """
        gate, case_id = Gate(CheckOptions(accept=self.accept)), case_id_of(self.image)
        try:
            gate.inspect(str(self.image), case_id=case_id)
            volume, warnings = gate.read(str(self.image), case_id=case_id)
        except CaseError as error:
            raise InputError(f"{case_id}: {explain(error)}", code=error.code) from error
        for warning in warnings:
            logger.warning("%s: %s [%s]", case_id, warning.reason, warning.code)
        return volume


def main() -> None:
    """Runs the command."""
    run_command(ClientCommand)


if __name__ == "__main__":
    main()
