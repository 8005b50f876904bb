"""Prediction of a case: from its image to its files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.conversion.gate import Gate
from fcnseg.inference.postprocessing import NOTHING, Postprocessing, postprocess
from fcnseg.inference.prediction import Coarse, predict_probabilities, predict_volume
from fcnseg.inference.segmenter import Segmenter
from fcnseg.inference.sliding_window import PROBABILITY_SCALE
from fcnseg.masks.case_outputs import CaseOutputs
from fcnseg.storage import files
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes import Volume, write_parts


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
        image = case.read(self.gate)
        names = self.segmenter.info.class_names
        if case.with_probabilities:
            mask, parts = predict_probabilities(self.segmenter, image.volume, coarse=self.coarse)
            case.clear()
            by_class = zip(names, parts, strict=True)
            _write_probabilities(by_class, case.probabilities, like=image.volume)
        else:
            mask = predict_volume(self.segmenter, image.volume, coarse=self.coarse)
            case.clear()
        voxel_mm3 = image.volume.geometry.voxel_mm3
        mask = postprocess(mask, self.postprocessing, voxel_mm3=voxel_mm3)
        case.write(mask, image, class_names=names, made_with=self.made_with)


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
