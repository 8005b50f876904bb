"""How well a mask agrees with the truth, organ by organ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.uint8 | np.uint16]


@dataclasses.dataclass(frozen=True)
class OrganScores:
    """Scores of one organ in one case, or their means over cases.

    Attributes:
        dice: Twice the common volume over the sum of both volumes, 0 to 1; None for an organ that
            is in neither.
    """

    dice: float | None = None

    @classmethod
    def mean(cls, scores: Iterable[OrganScores]) -> OrganScores:
        """Means over those that have the score; None where none has it."""
        all_scores = list(scores)
        return cls(
            **{
                field.name: mean_or_none(getattr(score, field.name) for score in all_scores)
                for field in dataclasses.fields(cls)
            }
        )


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None, or None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def score_organs(truth: Classes, mask: Classes, *, num_classes: int) -> tuple[OrganScores, ...]:
    """Scores each class but the background.

    Args:
        truth: Class indices (z, y, x).
        mask: Class indices (z, y, x) on the same grid.
        num_classes: Background included.

    Returns:
        Scores of the classes 1 to `num_classes - 1`.
    """
    in_truth, in_mask, in_both = np.zeros((3, num_classes), dtype=np.int64)
    for true, found in zip(truth, mask, strict=True):  # slices bound the memory of bincount
        in_truth += _count(true, num_classes)
        in_mask += _count(found, num_classes)
        in_both += _count(true[true == found], num_classes)
    return tuple(
        OrganScores(dice=float(2 * both / total) if total else None)
        for both, total in zip(in_both[1:], (in_truth + in_mask)[1:], strict=True)
    )


def _count(classes: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(classes.ravel(), minlength=num_classes)
