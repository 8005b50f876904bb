"""Segments a CT volume by a served model: `python -m serving.client --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from fcnseg.client import SegmentationClient
from fcnseg.command import run_command
from fcnseg.errors import InputError
from fcnseg.volumes import case_id_of, read_ct, write_mask
from fcnseg.whole_file import make_folder

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ClientCommand:
    """Sends a CT volume to a model server and writes the mask that comes back."""

    server: str
    """HOST:PORT of the server's gRPC interface."""
    image: Path
    """A CT volume (.nii, .nii.gz)."""
    output: Path
    """The mask to write, on exactly the grid of the image."""
    model_name: str = "fcnseg"
    """Name that the server knows the model by."""
    overwrite: bool = False
    """Replace a mask that is there already."""

    def run(self) -> None:
        """Reads, sends, writes."""
        if self.output.exists() and not self.overwrite:
            raise InputError(f"{self.output} is there already: give --overwrite to replace it")
        volume = read_ct(self.image, case_id=case_id_of(self.image))
        with SegmentationClient(self.server, model_name=self.model_name) as client:
            info = client.model_info()
            mask = client.segment(volume)
        make_folder(self.output.parent, argument="output")
        write_mask(mask, self.output, like=volume)
        logger.info("wrote %s with %s", self.output, ", ".join(info.class_names))


def main() -> None:
    """Entry point of the command."""
    run_command(ClientCommand)


if __name__ == "__main__":
    main()
