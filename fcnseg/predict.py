"""Segments CT volumes with a trained network: `python -m fcnseg.predict --help`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from fcnseg.command import run_command
from fcnseg.errors import FcnsegError, InputError
from fcnseg.inference import Segmenter, load_run, make_segmenter, predict_volume
from fcnseg.inference.label_tables import slicer_colours, snap_labels, workbench_table
from fcnseg.inference.organ_volumes import gather_organ_volumes, organ_volumes_ml
from fcnseg.inference.postprocessing import NOTHING, Postprocessing, postprocess
from fcnseg.volumes import list_images, read_ct, write_mask
from fcnseg.whole_file import write_whole

logger = logging.getLogger(__name__)

VOLUMES_FILE = "volumes.csv"
SNAP_FILE = "organs.label"
SLICER_FILE = "organs.ctbl"


@dataclasses.dataclass(frozen=True)
class PredictCommand:
    """Segments CT volumes with the best network of a finished training run."""

    run_dir: Path
    """Folder of a finished training run."""
    images: Path
    """A volume of any format (docs/formats.md), a folder of DICOM slices, or a folder of either."""
    output: Path
    """Folder for the masks: CASE.nii.gz, on exactly the grid of its image, and organ volumes."""
    overwrite: bool = False
    """Replace masks that are there already."""
    resume: bool = False
    """Leave out cases that are whole, and do the others."""
    postprocessing: Postprocessing = NOTHING

    def run(self) -> None:
        """Segments each volume; one that fails does not stop the others."""
        if self.overwrite and self.resume:
            raise InputError("overwrite and resume exclude each other: give one of them")
        cases = {
            case_id: Case(case_id, image, self.output)
            for case_id, image in list_images(self.images).items()
        }
        todo = self._todo(cases)
        segmenter = make_segmenter(*load_run(self.run_dir))
        self.output.mkdir(parents=True, exist_ok=True)
        progress = track(todo.items(), description="volumes", console=Console(stderr=True))
        reasons = {
            case_id: _reason_of_failure(segmenter, case, self.postprocessing)
            for case_id, case in progress
        }
        self._write_tables(cases, segmenter.info.class_names)
        failures = [f"{case_id}: {reason}" for case_id, reason in reasons.items() if reason]
        for failure in failures:
            logger.error("failed: %s", failure)
        if failures:
            raise InputError(f"{len(failures)} of {len(todo)} volumes failed: {failures[0]}")

    def _todo(self, cases: Mapping[str, Case]) -> dict[str, Case]:
        """The cases that are to be segmented."""
        present = [case.mask for case in cases.values() if case.mask.exists()]
        if present and not (self.overwrite or self.resume):
            raise InputError(
                f"{present[0]} is there already: give --overwrite to replace masks, or --resume to"
                " leave out cases that are whole"
            )
        is_done = {case_id: self.resume and case.is_whole() for case_id, case in cases.items()}
        if any(is_done.values()):
            logger.info("left out: %d cases that are whole", sum(is_done.values()))
        return {case_id: case for case_id, case in cases.items() if not is_done[case_id]}

    def _write_tables(self, cases: Mapping[str, Case], class_names: tuple[str, ...]) -> None:
        whole = [case.volumes for case in cases.values() if case.is_whole()]
        gather_organ_volumes(self.output / VOLUMES_FILE, whole, class_names)
        write_whole(self.output / SNAP_FILE, snap_labels(class_names))
        write_whole(self.output / SLICER_FILE, slicer_colours(class_names))


@dataclasses.dataclass(frozen=True)
class Case:
    """An image and the files that are made of it.

    Attributes:
        case_id: Names the files.
        image: A CT volume.
        output: Folder of the files.
    """

    case_id: str
    image: Path
    output: Path

    @property
    def mask(self) -> Path:
        """The mask, written last: where it is, the case is whole."""
        return self.output / f"{self.case_id}.nii.gz"

    @property
    def volumes(self) -> Path:
        """The organs' volumes in ml."""
        return self.output / f"{self.case_id}.json"

    def is_whole(self) -> bool:
        """Whether all files of the case are there; each is written whole or not at all."""
        return self.mask.exists() and self.volumes.exists()


def predict_case(
    segmenter: Segmenter, case: Case, postprocessing: Postprocessing = NOTHING
) -> None:
    """Segments one image, and writes its organs' volumes and the mask on its grid.

    Args:
        segmenter: Made by `make_segmenter`.
        case: What to read, and where to write.
        postprocessing: What is mended in the mask.

    Raises:
        InputError: If the image cannot be read, or is refused.
    """
    volume = read_ct(case.image, case_id=case.case_id)
    for finding in volume.findings:
        logger.warning("%s: %s", case.case_id, finding.reason)
    voxel_mm3 = abs(float(np.linalg.det(volume.affine[:3, :3])))
    mask = predict_volume(segmenter, volume)
    mask = postprocess(mask, postprocessing, voxel_mm3=voxel_mm3)
    names = segmenter.info.class_names
    case.mask.unlink(missing_ok=True)  # an old one would make two files of two networks a whole
    volumes_ml = organ_volumes_ml(mask, voxel_mm3=voxel_mm3, class_names=names)
    told = {"volumes_ml": volumes_ml, "postprocessing": dataclasses.asdict(postprocessing)}
    write_whole(case.volumes, json.dumps({"case_id": case.case_id, **told}, indent=2) + "\n")
    write_mask(mask, case.mask, like=volume, label_table=workbench_table(names))


def _reason_of_failure(
    segmenter: Segmenter, case: Case, postprocessing: Postprocessing
) -> str | None:
    """Predicts one case; what stopped it, or None."""
    try:
        predict_case(segmenter, case, postprocessing)
    except (FcnsegError, OSError) as error:
        return str(error)
    return None


def main() -> None:
    """Entry point of the command."""
    run_command(PredictCommand)


if __name__ == "__main__":
    main()
