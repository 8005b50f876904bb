"""Segments a CT volume with a served model: `fcnseg segment --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

from fcnseg.cli.command import run_command
from fcnseg.client import SegmentationClient
from fcnseg.conversion.case_lists.volumes import is_dicom_image
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import CaseError, explain
from fcnseg.errors import InputError
from fcnseg.evaluation.class_names import segments_of, workbench_table
from fcnseg.storage.whole_file import check_free, folder_for_output
from fcnseg.volumes import DicomOutputs, Volume, case_id_of, check_nifti_name, write_mask

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
    dicom_seg: Path | None = None
    """DICOM Segmentation to write too; the image must be DICOM."""
    rtstruct: Path | None = None
    """RT Structure Set to write too; the image must be DICOM."""
    model_name: str = "fcnseg"
    """Name of the model on the server."""
    overwrite: bool = False
    """Replace a mask that exists already."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""

    def run(self) -> None:
        """Reads the image, sends it, and writes the mask."""
        outputs = [self.output, *map(Path, self._dicom.paths)]
        if len(set(outputs)) < len(outputs):
            given = ", ".join(map(str, outputs))
            raise InputError(f"output, dicom_seg and rtstruct must be different files, got {given}")
        if self.image.absolute() in [output.absolute() for output in outputs]:
            raise InputError(f"output must be another file than the image, got {self.image}")
        check_free(outputs, overwrite=self.overwrite)
        check_nifti_name(self.output)
        self._check_dicom()
        with contextlib.ExitStack() as folders:
            for output in outputs:
                folders.enter_context(folder_for_output(output.parent))
            names = self._segment()
        logger.info("wrote %s with %s", self.output, ", ".join(names))

    @property
    def _dicom(self) -> DicomOutputs:
        return DicomOutputs(self.dicom_seg, self.rtstruct)

    def _check_dicom(self) -> None:
        """Checks that files that refer to DICOM images have such, and that they can be written."""
        flag = "rtstruct" if self.dicom_seg is None else "dicom_seg"
        if self._dicom.paths and self.image.exists() and not is_dicom_image(str(self.image)):
            raise InputError(
                f"{flag} must be given for images of DICOM alone, got {self.image}"
                f" (case {case_id_of(self.image)})"
            )
        self._dicom.check_packages()

    def _segment(self) -> tuple[str, ...]:
        """Writes the mask, and gives the names of its classes."""
        volume, source = self._read(), self._dicom.read_source(self.image)
        with SegmentationClient(self.server, model_name=self.model_name) as client:
            names = client.model_info().class_names
            mask = client.segment(volume, accept=self.accept)
        if source is not None:
            made_with = {"model_name": self.model_name}
            self._dicom.write(mask, source=source, segments=segments_of(names), made_with=made_with)
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
