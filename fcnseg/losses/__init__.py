"""Losses on logits and integer labels, and the Dice of each organ as a metric.

Sums are float32 whatever the network computes in.
"""

from fcnseg.losses.build import build_loss
from fcnseg.losses.cross_entropy import CrossEntropyLoss
from fcnseg.losses.deep_supervision import DeeplySupervised, level_weights
from fcnseg.losses.dice_cross_entropy import DiceCrossEntropyLoss
from fcnseg.losses.focal import FocalLoss
from fcnseg.losses.organ_dice import OrganDice
from fcnseg.losses.soft_dice import SoftDiceLoss
from fcnseg.losses.top_k import TopKCrossEntropyLoss
from fcnseg.losses.tversky import TverskyLoss

__all__ = [
    "CrossEntropyLoss",
    "DeeplySupervised",
    "DiceCrossEntropyLoss",
    "FocalLoss",
    "OrganDice",
    "SoftDiceLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "build_loss",
    "level_weights",
]
