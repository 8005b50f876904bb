"""The validation Dice that a network loses in int8, organ by organ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from fcnseg.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Int8Dice:
    """Validation Dice of an organ before and after quantisation.

    Attributes:
        organ: Its name.
        float32: Dice in float32, 0 to 1; None if it is in no reference and no mask.
        int8: Dice in int8.
    """

    organ: str
    float32: float | None
    int8: float | None

    @classmethod
    def of(cls, organ: str, before: float, after: float) -> Int8Dice:
        """Takes Dice of which NaN means none."""
        return cls(organ, *(None if math.isnan(dice) else dice for dice in (before, after)))

    @property
    def lost(self) -> float:
        """Dice in float32 minus Dice in int8; an organ in one of the masks alone loses all."""
        if self.float32 is None:
            return 0.0 if self.int8 is None else 1.0
        return self.float32 - (self.int8 or 0.0)


def check_dice(organs: Iterable[Int8Dice], *, max_dice_loss: float) -> None:
    """Checks that no organ loses more Dice than allowed.

    Raises:
        ModelError: If one does; the loss of each is named.
    """
    if any(each.lost > max_dice_loss for each in organs):
        raise ModelError(
            f"int8 may lose {max_dice_loss:g} of an organ's validation Dice, got"
            f" {losses_of(organs)}; nothing is published"
        )


def losses_of(organs: Iterable[Int8Dice]) -> str:
    """Lists the losses for a message.

    >>> losses_of([Int8Dice("liver", 0.95, 0.9487), Int8Dice("spleen", 0.9, 0.9)])
    'liver 0.0013, spleen 0.0000'
    """
    return ", ".join(f"{each.organ} {each.lost:.4f}" for each in organs)
