"""The validation Dice that a network loses in int8, organ by organ."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Sequence

from fcnseg.errors import ModelError

logger = logging.getLogger(__name__)


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
    def lost(self) -> float | None:
        """Dice in float32 minus Dice in int8; an organ in one of the masks alone loses all.

        None if it is in no reference and no mask, so that there is nothing to compare.
        """
        if self.float32 is None:
            return None if self.int8 is None else 1.0
        return self.float32 - (self.int8 or 0.0)


def check_dice(organs: Sequence[Int8Dice], *, max_dice_loss: float) -> None:
    """Checks that no organ loses more Dice than allowed, and warns of those not compared.

    Raises:
        ModelError: If one does, or none can be compared; the loss of each is named.
    """
    lost = [each.lost for each in organs if each.lost is not None]
    if not lost or max(lost) > max_dice_loss:
        raise ModelError(
            f"int8 may lose {max_dice_loss:g} of an organ's validation Dice, got"
            f" {losses_of(organs)}; nothing is published"
        )
    missing = [each.organ for each in organs if each.lost is None]
    if missing:
        logger.warning(f"int8 is not checked for what no validation case has: {', '.join(missing)}")


def losses_of(organs: Iterable[Int8Dice]) -> str:
    """Lists the losses for a message.

    >>> losses_of([Int8Dice("liver", 0.95, 0.9487), Int8Dice("spleen", None, None)])
    'liver 0.0013, spleen in no validation case'
    """
    return ", ".join(f"{each.organ} {_words(each.lost)}" for each in organs)


def _words(lost: float | None) -> str:
    return "in no validation case" if lost is None else f"{lost:.4f}"
