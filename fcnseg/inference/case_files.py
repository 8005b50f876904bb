"""An image, and the files that prediction makes of it."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.inference.label_tables import workbench_table
from fcnseg.inference.organ_volumes import organ_volumes_ml
from fcnseg.inference.postprocessing import NOTHING, Postprocessing, postprocess
from fcnseg.inference.prediction import Coarse, predict_volume
from fcnseg.inference.segmenter import Segmenter
from fcnseg.volumes import read_ct, write_mask
from fcnseg.whole_file import write_whole

logger = logging.getLogger(__name__)


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

    def made_with(self) -> dict[str, Any]:
        """What the files were made with, as `CasePredictor` has it."""
        content = json.loads(self.volumes.read_text(encoding="utf-8"))
        return dict(content.get("made_with", {}))


@dataclasses.dataclass(frozen=True)
class CasePredictor:
    """Makes the files of cases.

    Attributes:
        segmenter: Made by `make_segmenter`.
        coarse: What tells where to look; everywhere by default.
        postprocessing: What is mended in masks.
        made_with: What masks depend on beside their images, for the record.
    """

    segmenter: Segmenter
    coarse: Coarse | None = None
    postprocessing: Postprocessing = NOTHING
    made_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def predict(self, case: Case) -> None:
        """Segments one image, and writes its organs' volumes and the mask on its grid.

        Raises:
            InputError: If the image cannot be read, or is refused.
        """
        volume = read_ct(case.image, case_id=case.case_id)
        for finding in volume.findings:
            logger.warning("%s: %s", case.case_id, finding.reason)
        voxel_mm3 = abs(float(np.linalg.det(volume.affine[:3, :3])))
        mask = predict_volume(self.segmenter, volume, coarse=self.coarse)
        mask = postprocess(mask, self.postprocessing, voxel_mm3=voxel_mm3)
        names = self.segmenter.info.class_names
        case.mask.unlink(missing_ok=True)  # an old one would make two files of two networks a whole
        volumes_ml = organ_volumes_ml(mask, voxel_mm3=voxel_mm3, class_names=names)
        told = {"volumes_ml": volumes_ml, "made_with": dict(self.made_with)}
        write_whole(case.volumes, json.dumps({"case_id": case.case_id, **told}, indent=2) + "\n")
        write_mask(mask, case.mask, like=volume, label_table=workbench_table(names))
