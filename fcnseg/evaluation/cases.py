"""Cases to evaluate: which files belong together, and the scores of one case."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from fcnseg.errors import InputError, told
from fcnseg.evaluation.scores import OrganScores, score_organs, without_ignored
from fcnseg.volumes import (
    LabelMap,
    Volume,
    check_same_voxels,
    list_volumes,
    read_ct,
    read_label,
    turn_like,
)

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class CaseFiles:
    """The files of one case."""

    case_id: str
    mask: Path
    label: Path
    image: Path | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One case in memory: class indices of truth and mask, HU of the image, on one grid.

    Voxels that the label map ignores are background in truth and mask.
    """

    case_id: str
    truth: Volume
    mask: Volume
    image: Volume | None = None

    def scores(
        self, tolerances_mm: Mapping[str, float], *, threads: int = 1
    ) -> dict[str, OrganScores]:
        """Scores by organ.

        Args:
            tolerances_mm: The organs in the order of their class indices, the background left
                out, each with the tolerance of its surface Dice.
            threads: Surfaces in work at one time.

        Raises:
            MissingExtraError: If surface-distance is not installed.
        """
        scores = score_organs(
            self.truth.array,
            self.mask.array,
            num_classes=len(tolerances_mm) + 1,
            spacing=self.truth.spacing,
            tolerances_mm=list(tolerances_mm.values()),
            threads=threads,
        )
        return dict(zip(tolerances_mm, scores, strict=True))


def pair_files(
    masks: PathLike, labels: PathLike, images: PathLike | None = None
) -> list[CaseFiles]:
    """Finds the label, and the image if a folder of images is given, of each mask by its name.

    Labels and images without a mask are passed over: a run may predict some cases of many.

    Raises:
        InputError: If a folder is missing or empty, or a mask has no label or no image.
    """
    by_mask = list_volumes(masks)
    by_label = _partners(by_mask, labels, what="label")
    by_image = {} if images is None else _partners(by_mask, images, what="image")
    return [
        CaseFiles(case_id, mask, by_label[case_id], by_image.get(case_id))
        for case_id, mask in by_mask.items()
    ]


def _partners(masks: Mapping[str, Path], folder: PathLike, *, what: str) -> dict[str, Path]:
    partners = list_volumes(folder)
    alone = sorted(masks.keys() - partners.keys())
    if alone:
        raise InputError(f"no {what} in {folder} for mask {told(alone)}")
    return partners


def read_case(files: CaseFiles, label_map: LabelMap) -> Case:
    """Reads one case.

    Args:
        files: Where it lies; the mask holds class indices, as `fcnseg.predict` writes them.
        label_map: Turns the label's ids into class indices.

    Returns:
        Truth, mask and image on the grid of the label file.

    Raises:
        InputError: If a file is unreadable.
        LabelError: If the label holds an id that the map refuses, or the mask no class index.
        GeometryError: If they do not have the same voxels in the same places.
    """
    case_id = files.case_id
    label, mask = (read_label(path, case_id=case_id) for path in (files.label, files.mask))
    check_same_voxels(mask, label.geometry, names=("mask", "label"), case_id=case_id)
    mask = turn_like(mask, label)
    image = None if files.image is None else read_ct(files.image, case_id=case_id)
    if image is not None:
        check_same_voxels(image, label.geometry, case_id=case_id)
        image = turn_like(image, label)
    indices = LabelMap.consecutive(label_map.class_names)
    classes, predicted = without_ignored(
        label_map.apply(label.array, case_id=case_id),
        indices.apply(mask.array, case_id=case_id),
        label_map.ignore_label,
    )
    return Case(case_id, label.with_array(classes), mask.with_array(predicted), image)
