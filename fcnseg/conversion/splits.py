"""Assignment of patients to splits by a hash, so that adding cases moves no patient."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from fcnseg.conversion.cases import Case
from fcnseg.errors import InputError
from fcnseg.records.hash_to_unit_interval import hash_to_unit_interval


def split_of(
    patient_id: str, *, validation_fraction: float, test_fraction: float, seed: int
) -> str:
    """Gives the split of a patient, independent of all other patients.

    Args:
        patient_id: Name of the patient.
        validation_fraction: Share of patients for validation.
        test_fraction: Share of patients for testing; another validation fraction moves none of
            these.
        seed: Another seed gives other splits.

    Returns:
        One of `fcnseg.records.SPLITS`.
    """
    place = hash_to_unit_interval(patient_id, seed=seed)
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def with_splits(
    cases: Iterable[Case], *, validation_fraction: float, test_fraction: float, seed: int
) -> tuple[Case, ...]:
    """Gives each case its split: the one that it has already, or else that of its patient.

    Args:
        cases: The cases.
        validation_fraction: See `split_of`, like the other two.
        test_fraction: See there.
        seed: See there.
    """
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return tuple(
        dataclasses.replace(
            case, split=case.split or split_of(case.patient_id, **fractions, seed=seed)
        )
        for case in cases
    )


def check_fractions(*, validation_fraction: float, test_fraction: float) -> None:
    """Checks the two fractions.

    Raises:
        InputError: If one is negative, or they leave nothing to train on.
    """
    if not (validation_fraction >= 0 and 0 <= test_fraction < 1 - validation_fraction):
        raise InputError(
            "validation_fraction and test_fraction must not be negative and their sum must be "
            f"below 1, got {validation_fraction} and {test_fraction}"
        )
