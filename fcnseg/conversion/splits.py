"""Assignment of patients to splits by a hash, so that adding cases moves no patient."""

from __future__ import annotations

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
