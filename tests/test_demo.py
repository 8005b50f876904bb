"""The demo fails if a network has lost an organ, whatever the mean."""

from __future__ import annotations

import pytest

from examples.demo import StepError, check_dice
from fcnseg.evaluation import Evaluation, OrganScores


def evaluation_of(**dices):
    scores = {organ: OrganScores(dice=dice) for organ, dice in dices.items()}
    return Evaluation(tuple(dices), {"patient": scores})


def test_good_masks_pass():
    check_dice(evaluation_of(liver=0.95, gallbladder=0.66))


@pytest.mark.parametrize(
    ("dices", "message"),
    [
        ({"liver": 0.9, "pancreas": 0.6992}, r"mean Dice must be at least 0\.8, got 0\.7996"),
        (
            {"liver": 0.96, "spleen": 0.95, "kidney": 0.95, "gallbladder": 0.59},
            r"Dice of gallbladder must be at least 0\.6, got 0\.590",
        ),
        ({"liver": None, "spleen": 0.95}, "Dice of liver must be at least"),
        ({"liver": None}, r"mean Dice must be at least 0\.8, got 0\.000"),
    ],
)
def test_poor_masks_fail(dices, message):
    with pytest.raises(StepError, match=message):
        check_dice(evaluation_of(**dices))
