"""An image, and the files that are written for it: its mask, and the volumes of its organs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import opened
from fcnseg.evaluation.class_names import segments_of, workbench_table
from fcnseg.masks.organ_volumes import organ_volumes_ml
from fcnseg.storage import files
from fcnseg.storage.whole_file import write_whole
from fcnseg.volumes import DicomOutputs, DicomSource, Volume, image_digest, write_mask

logger = logging.getLogger(__name__)

_IMAGE_FACTS = ("image_sha256", "series_uid")


@dataclasses.dataclass(frozen=True)
class CaseImage:
    """The image of a case, read and checked.

    Attributes:
        volume: HU (z, y, x), int16.
        source: Headers to which files of DICOM refer; None if there are no such files.
        facts: Facts that identify the image, as `made_with` has them.
    """

    volume: Volume
    source: DicomSource | None
    facts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class CaseOutputs:
    """An image and the files that are written for it.

    Attributes:
        case_id: Name of the case; it names the files.
        image: A CT volume, on any file system.
        output: Folder of the files, on any file system.
        series_uid: The DICOM series of the image; by default that with the most slices.
        with_probabilities: True if the probabilities of each class are among them.
        with_dicom_seg: True if a DICOM Segmentation is among them; the image is DICOM then.
        with_rtstruct: True if an RT Structure Set is among them; the image is DICOM then.
    """

    case_id: str
    image: str
    output: str
    series_uid: str | None = None
    with_probabilities: bool = False
    with_dicom_seg: bool = False
    with_rtstruct: bool = False

    @property
    def mask(self) -> str:
        """The mask, written last, so that the case is complete if it exists."""
        return files.join(self.output, f"{self.case_id}.nii.gz")

    @property
    def volumes(self) -> str:
        """The organs' volumes in ml."""
        return files.join(self.output, f"{self.case_id}.json")

    @property
    def probabilities(self) -> str:
        """Folder of the classes' probabilities, so that no other volume lies next to the masks."""
        return files.join(self.output, "probabilities", self.case_id)

    @property
    def dicom_seg(self) -> str:
        """The mask as a DICOM Segmentation."""
        return files.join(self.output, f"{self.case_id}.seg.dcm")

    @property
    def rtstruct(self) -> str:
        """The mask as an RT Structure Set."""
        return files.join(self.output, f"{self.case_id}.rtstruct.dcm")

    @property
    def dicom(self) -> DicomOutputs:
        """Those of the two that are written."""
        return DicomOutputs(
            self.dicom_seg if self.with_dicom_seg else None,
            self.rtstruct if self.with_rtstruct else None,
        )

    @property
    def masks(self) -> list[str]:
        """The mask in all the formats that are written."""
        return [self.mask, *map(str, self.dicom.paths)]

    def is_whole(self) -> bool:
        """Tells whether all files of the case exist; each is written atomically.

        A disk may lose the contents of a file: a case whose volumes cannot be read is not complete.
        """
        if not all(files.exists(path) for path in (self.volumes, *self.masks)):
            return False
        if self.with_probabilities and not files.is_folder(self.probabilities):
            return False
        return bool(self._content())

    def clear(self) -> None:
        """Deletes old files: next to new ones, they would mix the results of two networks."""
        old = [self.mask, self.dicom_seg, self.rtstruct]  # the mask first: it ends a case
        files.delete([path for path in old if files.exists(path)])
        files.delete_folder(self.probabilities)

    @contextlib.contextmanager
    def local_image(self) -> Iterator[Path]:
        """The image on this machine: itself, or a copy that is deleted afterwards.

        Raises:
            CaseError: If it is in an object store, and is missing or the block fails on it.
        """
        if files.is_local(self.image):
            yield Path(self.image)
            return
        with opened(self.image) as path:
            yield path

    def image_facts(self) -> dict[str, str]:
        """Facts that identify the image, as `made_with` has them.

        Raises:
            InputError: If the image cannot be read.
        """
        with self.local_image() as image:
            return self.facts_of(image)

    def facts_of(self, copy: Path) -> dict[str, str]:
        """The same, from a copy on this machine; see `image_facts`."""
        series = {} if self.series_uid is None else {"series_uid": self.series_uid}
        return {"image_sha256": image_digest(copy), **series}

    def read(self, gate: Gate) -> CaseImage:
        """Reads the image, if it can be a CT, and logs what is odd about it.

        Raises:
            InputError: If it cannot be read, cannot be a CT, or files of DICOM cannot refer to it.
        """
        named: dict[str, Any] = {"case_id": self.case_id, "series_uid": self.series_uid}
        with self.local_image() as image:
            gate.inspect(str(image), **named)
            facts = self.facts_of(image)
            volume, warnings = gate.read(str(image), **named)
            source = self.dicom.read_source(image, series_uid=self.series_uid)
        for warning in warnings:
            logger.warning("%s: %s [%s]", self.case_id, warning.reason, warning.code)
        return CaseImage(volume, source, facts)

    def write(
        self,
        mask: npt.NDArray[np.uint8],
        image: CaseImage,
        *,
        class_names: Sequence[str],
        made_with: Mapping[str, Any],
        windows: Mapping[str, int] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Writes the organs' volumes, the mask in formats of DICOM, and last the mask.

        Args:
            mask: Class ids (z, y, x) on the image's grid.
            image: The image, as `read` gives it.
            class_names: By class id, background first.
            made_with: Provenance: all that the mask depends on apart from its image.
            windows: Numbers of windows that the file of volumes has too.
            seconds: Time of each phase before this one, which it has too.
        """
        made_with = {**made_with, **image.facts}
        voxel_mm3 = image.volume.geometry.voxel_mm3
        volumes_ml = organ_volumes_ml(mask, voxel_mm3=voxel_mm3, class_names=class_names)
        content: dict[str, Any] = {"case_id": self.case_id, "volumes_ml": volumes_ml}
        if windows is not None:
            content["windows"] = dict(windows)
        if seconds is not None:
            content["seconds"] = {phase: round(each, 3) for phase, each in seconds.items()}
        content["made_with"] = made_with
        write_whole(self.volumes, json.dumps(content, indent=2) + "\n")
        if image.source is not None:
            segments = segments_of(class_names)
            self.dicom.write(mask, source=image.source, segments=segments, made_with=made_with)
        table = workbench_table(class_names)
        write_mask(mask, self.mask, like=image.volume, label_table=table)

    def made_with(self) -> dict[str, Any]:
        """The provenance of the files and facts of the image, as `write` had them."""
        return dict(self._content().get("made_with", {}))

    def made_by(self) -> dict[str, Any]:
        """The same without the facts of the image: equal for all masks of a job."""
        return {name: fact for name, fact in self.made_with().items() if name not in _IMAGE_FACTS}

    def _content(self) -> dict[str, Any]:
        """Reads the file of volumes; empty if it is not as it was written."""
        try:
            content = json.loads(files.read_text(self.volumes))
        except ValueError:
            return {}
        is_ours = isinstance(content, dict) and isinstance(content.get("volumes_ml"), dict)
        is_ours = is_ours and isinstance(content.get("made_with", {}), dict)
        return dict(content) if is_ours else {}


def list_masked_cases(folder: str | os.PathLike[str]) -> list[str]:
    """Lists the ids of the cases with a mask and a file of volumes in a folder, if it exists."""
    if not files.is_folder(folder):
        return []
    names = files.children(folder)
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(stem for stem in stems if f"{stem}.nii.gz" in names)
