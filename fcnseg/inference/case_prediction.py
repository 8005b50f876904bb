"""Prediction of a case: from its image to its files."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.conversion.gate import Gate
from fcnseg.evaluation.class_names import segments_of, workbench_table
from fcnseg.inference.case_files import CaseOutputs
from fcnseg.inference.organ_volumes import organ_volumes_ml
from fcnseg.inference.postprocessing import NOTHING, Postprocessing, postprocess
from fcnseg.inference.prediction import Coarse, predict_probabilities, predict_volume
from fcnseg.inference.segmenter import Segmenter
from fcnseg.inference.sliding_window import PROBABILITY_SCALE
from fcnseg.storage import files
from fcnseg.storage.whole_file import atomic_write, write_whole
from fcnseg.volumes import Volume, write_mask, write_parts

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CasePredictor:
    """Writes the files of cases.

    Attributes:
        segmenter: Made by `make_segmenter`.
        coarse: Network that finds the region of interest; everywhere by default.
        postprocessing: Post-processing of masks.
        made_with: Provenance: all that masks depend on apart from their images.
        gate: Reads the images.
    """

    segmenter: Segmenter
    coarse: Coarse | None = None
    postprocessing: Postprocessing = NOTHING
    made_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gate: Gate = dataclasses.field(default_factory=Gate)

    def predict(self, case: CaseOutputs) -> None:
        """Segments one image, and writes its organs' volumes and the mask on its grid.

        Raises:
            InputError: If the image cannot be read, cannot be a CT, or is refused.
        """
        with case.local_image() as image:
            case_id, series_uid = case.case_id, case.series_uid
            self.gate.inspect(str(image), case_id=case_id, series_uid=series_uid)
            made_with = {**self.made_with, **case.facts_of(image)}
            volume, warnings = self.gate.read(str(image), case_id=case_id, series_uid=series_uid)
            source = case.dicom.read_source(image, series_uid=series_uid)
        for warning in warnings:
            logger.warning("%s: %s [%s]", case.case_id, warning.reason, warning.code)
        voxel_mm3 = volume.geometry.voxel_mm3
        names = self.segmenter.info.class_names
        if case.with_probabilities:
            mask, parts = predict_probabilities(self.segmenter, volume, coarse=self.coarse)
            case.clear()
            _write_probabilities(zip(names, parts, strict=True), case.probabilities, like=volume)
        else:
            mask = predict_volume(self.segmenter, volume, coarse=self.coarse)
            case.clear()
        mask = postprocess(mask, self.postprocessing, voxel_mm3=voxel_mm3)
        volumes_ml = organ_volumes_ml(mask, voxel_mm3=voxel_mm3, class_names=names)
        content = {"volumes_ml": volumes_ml, "made_with": made_with}
        write_whole(case.volumes, json.dumps({"case_id": case.case_id, **content}, indent=2) + "\n")
        if source is not None:
            case.dicom.write(mask, source=source, segments=segments_of(names), made_with=made_with)
        write_mask(mask, case.mask, like=volume, label_table=workbench_table(names))


def probability_file(index: int, class_name: str) -> str:
    """Name of the file of a class's probability; characters unsafe in file names are replaced.

    >>> probability_file(3, "portal/splenic vein")
    '003_portal_splenic_vein.nii.gz'
    """
    return f"{index:03}_{re.sub(r'[^A-Za-z0-9._-]+', '_', class_name)}.nii.gz"


def _write_probabilities(
    by_class: Iterable[tuple[str, npt.NDArray[np.int16]]], folder: str, *, like: Volume
) -> None:
    """Writes a file per class into a folder that is renamed into place when all are written.

    In an object store they appear one by one; the mask of the case is written after them.
    """
    if files.is_local(folder):
        Path(folder).parent.mkdir(exist_ok=True)
    with atomic_write(folder) as whole:
        whole.mkdir()
        for index, (name, parts) in enumerate(by_class):
            write_parts(
                parts, whole / probability_file(index, name), whole=PROBABILITY_SCALE, like=like
            )
