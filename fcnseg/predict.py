"""Segments CT volumes with a trained network: `python -m fcnseg.predict --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from rich.console import Console
from rich.progress import track

from fcnseg.command import run_command
from fcnseg.errors import FcnsegError, InputError
from fcnseg.inference import Segmenter, load_run, make_segmenter, predict_volume
from fcnseg.volumes import case_id_of, list_volumes, read_ct, write_mask

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PredictCommand:
    """Segments CT volumes with the best network of a finished training run."""

    run_dir: Path
    """Folder of a finished training run."""
    images: Path
    """A volume (.nii, .nii.gz), or a folder of volumes."""
    output: Path
    """Folder for the masks: CASE.nii.gz, on exactly the grid of its image."""
    overwrite: bool = False
    """Replace masks that are there already."""

    def run(self) -> None:
        """Segments each volume; one that fails does not stop the others."""
        images = list_volumes(self.images) if self.images.is_dir() else _one_volume(self.images)
        masks = {case_id: self.output / f"{case_id}.nii.gz" for case_id in images}
        present = [mask for mask in masks.values() if mask.exists()]
        if present and not self.overwrite:
            raise InputError(f"{present[0]} is there already: give --overwrite to replace masks")
        segmenter = make_segmenter(*load_run(self.run_dir))
        self.output.mkdir(parents=True, exist_ok=True)
        progress = track(images.items(), description="volumes", console=Console(stderr=True))
        reasons = {
            case_id: _reason_of_failure(segmenter, image, masks[case_id])
            for case_id, image in progress
        }
        failures = [f"{case_id}: {reason}" for case_id, reason in reasons.items() if reason]
        for failure in failures:
            logger.error("failed: %s", failure)
        if failures:
            raise InputError(f"{len(failures)} of {len(images)} volumes failed: {failures[0]}")


def predict_file(segmenter: Segmenter, image: Path, mask: Path) -> None:
    """Segments one file and writes the mask on its grid.

    Args:
        segmenter: Made by `make_segmenter`.
        image: A CT volume.
        mask: File to write.

    Raises:
        InputError: If the image cannot be read, or is refused.
    """
    volume = read_ct(image, case_id=case_id_of(image))
    write_mask(predict_volume(segmenter, volume), mask, like=volume)


def _reason_of_failure(segmenter: Segmenter, image: Path, mask: Path) -> str | None:
    """Predicts one file; what stopped it, or None."""
    try:
        predict_file(segmenter, image, mask)
    except (FcnsegError, OSError) as error:
        return str(error)
    return None


def _one_volume(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise InputError(f"images must be a volume or a folder of volumes, got {path}")
    return {case_id_of(path): path}


def main() -> None:
    """Entry point of the command."""
    run_command(PredictCommand)


if __name__ == "__main__":
    main()
