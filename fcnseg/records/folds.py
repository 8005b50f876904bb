"""Folds of cross-validation: the cases of a dataset reassigned to training and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from fcnseg.errors import DatasetError, InputError
from fcnseg.records.hash_to_unit_interval import hash_to_unit_interval

DEALT = ("train", "validation")
"""The splits whose cases a fold reassigns; the test split is in no fold."""


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of several divisions of the cases; each case is a validation case in exactly one of them.

    Attributes:
        number: Number of the fold, from 0.
        count: Number of folds.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"folds must be at least 2, got {self.count}")
        if not 0 <= self.number < self.count:
            raise InputError(
                f"fold must be 0 to {self.count - 1} for {self.count} folds, got {self.number}"
            )

    @classmethod
    def of(cls, fold: int | None, folds: int | None) -> Fold | None:
        """Makes the fold of these two flags; None if neither is given.

        Raises:
            InputError: If only one is given, or one is out of range.
        """
        if fold is None and folds is None:
            return None
        if fold is None or folds is None:
            raise InputError("fold and folds belong together: give both or neither")
        return cls(fold, folds)

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"

    def validating(self, patients: Iterable[str], *, seed: int) -> set[str]:
        """Gives the patients of the validation cases.

        The patients are ordered by a hash and dealt like cards, so the folds differ in size by one
        patient at most, and are the same on every machine. Adding a patient changes them.

        Args:
            patients: The ids of all patients; duplicates count once.
            seed: Another seed gives other folds.

        Raises:
            DatasetError: If there are fewer patients than folds.
        """
        order = sorted(
            set(patients), key=lambda patient: (hash_to_unit_interval(patient, seed=seed), patient)
        )
        if len(order) < self.count:
            raise DatasetError(
                f"folds must be at most as many as patients, {len(order)}, got {self.count}"
            )
        return set(order[self.number :: self.count])

    def deal(self, patient_of: Mapping[str, str], *, seed: int) -> dict[str, str]:
        """Divides cases into training and validation by patient.

        Args:
            patient_of: Patient id by case id of all cases of `DEALT`.
            seed: Another seed gives other folds.

        Returns:
            The split by case id.

        Raises:
            DatasetError: If there are fewer patients than folds.
        """
        validating = self.validating(patient_of.values(), seed=seed)
        return {
            case_id: "validation" if patient in validating else "train"
            for case_id, patient in patient_of.items()
        }
