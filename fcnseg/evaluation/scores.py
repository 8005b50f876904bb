"""Agreement of a mask with the reference, organ by organ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fcnseg.evaluation.surfaces import Voxels, surface_scores
from fcnseg.volumes import Triple, voxel_ml

Classes = npt.NDArray[np.uint8 | np.uint16]
Box = tuple[slice, ...]

DEFAULT_TOLERANCE_MM = 2.0
"""The strictest tolerance that FLARE 2022 gives an abdominal organ: vessels, adrenal glands."""


@dataclasses.dataclass(frozen=True)
class OrganScores:
    """Scores of one organ in one case, or their means over cases.

    A score that is undefined is None: all of them for an organ that is in neither reference nor
    mask; for an organ in only one of the two, the distances, and those of precision (empty mask),
    recall and relative volume difference (empty reference) that would divide by zero. Dice, IoU and
    surface Dice are then 0.

    Attributes:
        dice: Twice the common volume over the sum of both volumes, 0 to 1.
        iou: The common volume over the volume of either, 0 to 1.
        precision: Fraction of the mask that is in the reference, 0 to 1.
        recall: Fraction of the reference that is in the mask, 0 to 1.
        surface_dice: Fraction of both surfaces that lies within a tolerance of the other, 0 to 1.
        hausdorff_distance_95_mm: The distance within which 95 % of a surface's area stays, the
            larger of both directions.
        hausdorff_distance_mm: The largest distance from one surface to the other.
        mean_surface_distance_mm: Mean distance by area, then the mean of both directions.
        reference_ml: Volume of the reference.
        mask_ml: Volume of the mask.
        volume_difference_ml: Mask minus reference.
        relative_volume_difference: Mask minus reference, over reference.
    """

    dice: float | None = None
    iou: float | None = None
    precision: float | None = None
    recall: float | None = None
    surface_dice: float | None = None
    hausdorff_distance_95_mm: float | None = None
    hausdorff_distance_mm: float | None = None
    mean_surface_distance_mm: float | None = None
    reference_ml: float | None = None
    mask_ml: float | None = None
    volume_difference_ml: float | None = None
    relative_volume_difference: float | None = None

    @classmethod
    def mean(cls, scores: Iterable[OrganScores]) -> OrganScores:
        """Means over those that have the score; None if none has it."""
        all_scores = list(scores)
        return cls(
            **{
                field.name: mean_or_none(getattr(score, field.name) for score in all_scores)
                for field in dataclasses.fields(cls)
            }
        )

    @property
    def is_false_negative(self) -> bool:
        """True if the organ is a false negative, in the reference and absent from the mask."""
        return self.precision is None and self.recall is not None

    @property
    def is_false_positive(self) -> bool:
        """True if the organ is a false positive, in the mask and absent from the reference."""
        return self.recall is None and self.precision is not None


def dice_where_present(scores: Iterable[OrganScores]) -> float | None:
    """The mean Dice over the cases whose reference has the organ; None if none has it."""
    return mean_or_none(score.dice for score in scores if score.recall is not None)


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """The mean of all values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def without_ignored(
    reference: Classes, mask: Classes, ignore_label: int | None
) -> tuple[Classes, Classes]:
    """Sets reference and mask to background where the reference is unknown.

    Args:
        reference: Class indices (z, y, x) of the reference.
        mask: Class indices (z, y, x) on the same grid.
        ignore_label: Value of the reference there; None if it is known everywhere.
    """
    if ignore_label is None:
        return reference, mask
    known = reference != ignore_label
    return reference * known, mask * known


def score_organs(
    reference: Classes,
    mask: Classes,
    *,
    num_classes: int,
    spacing: Triple | None = None,
    tolerances_mm: Sequence[float] | None = None,
    threads: int = 1,
) -> tuple[OrganScores, ...]:
    """Scores each class but the background, each within its bounding box.

    Args:
        reference: Class indices (z, y, x) of the reference.
        mask: Class indices (z, y, x) on the same grid.
        num_classes: Background included.
        spacing: Millimetres (z, y, x); without it only the scores that need no millimetres are
            computed: Dice, IoU, precision and recall.
        tolerances_mm: Tolerance of the surface Dice of each class but the background; by default 2
            mm each.
        threads: Number of surfaces computed concurrently.

    Returns:
        Scores of the classes 1 to `num_classes - 1`.

    Raises:
        MissingExtraError: If a spacing is given and surface-distance is not installed.
    """
    tolerances_mm = tolerances_mm or (DEFAULT_TOLERANCE_MM,) * (num_classes - 1)
    scores = [OrganScores()] * (num_classes - 1)
    with_surfaces: dict[int, tuple[Voxels, Voxels]] = {}
    for index, box in _boxes(reference, mask, num_classes):
        pair = reference[box] == index + 1, mask[box] == index + 1
        scores[index] = _overlap(*pair, spacing)
        if spacing and not (scores[index].is_false_negative or scores[index].is_false_positive):
            with_surfaces[index] = pair
    if spacing and with_surfaces:
        tolerances = [tolerances_mm[index] for index in with_surfaces]
        found = surface_scores(
            list(with_surfaces.values()), spacing, tolerances_mm=tolerances, threads=threads
        )
        for index, surface in zip(with_surfaces, found, strict=True):
            scores[index] = dataclasses.replace(scores[index], **surface)
    return tuple(scores)


def _boxes(reference: Classes, mask: Classes, num_classes: int) -> Iterator[tuple[int, Box]]:
    """Index of each organ present, from 0, and the bounding box of its reference and its mask.

    The largest come first, so that threads are busy to the end.
    """
    boxes = {}
    found = [ndimage.find_objects(part, max_label=num_classes - 1) for part in (reference, mask)]
    for index, pair in enumerate(zip(*found, strict=True)):
        parts = [box for box in pair if box is not None]
        if parts:
            boxes[index] = tuple(
                slice(min(side.start for side in sides), max(side.stop for side in sides))
                for sides in zip(*parts, strict=True)
            )
    yield from sorted(boxes.items(), key=lambda item: -np.prod([s.stop - s.start for s in item[1]]))


def _overlap(reference: Voxels, mask: Voxels, spacing: Triple | None) -> OrganScores:
    """Scores that count voxels; at least one of the two is not empty."""
    in_reference, in_mask, in_both = map(
        int, map(np.count_nonzero, (reference, mask, reference & mask))
    )
    scores = OrganScores(
        dice=2 * in_both / (in_reference + in_mask),
        iou=in_both / (in_reference + in_mask - in_both),
        precision=in_both / in_mask if in_mask else None,
        recall=in_both / in_reference if in_reference else None,
    )
    if spacing is None:
        return scores
    ml_per_voxel = voxel_ml(spacing)
    return dataclasses.replace(
        scores,
        surface_dice=0.0,  # for an organ in only one of the two; otherwise replaced
        reference_ml=in_reference * ml_per_voxel,
        mask_ml=in_mask * ml_per_voxel,
        volume_difference_ml=(in_mask - in_reference) * ml_per_voxel,
        relative_volume_difference=(in_mask - in_reference) / in_reference
        if in_reference
        else None,
    )
