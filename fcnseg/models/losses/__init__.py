"""Losses on logits and integer labels. Sums are float32 whatever the network computes in."""

from fcnseg.models.losses.build import build_loss
from fcnseg.models.losses.cross_entropy import CrossEntropyLoss
from fcnseg.models.losses.dice_cross_entropy import DiceCrossEntropyLoss
from fcnseg.models.losses.focal import FocalLoss
from fcnseg.models.losses.soft_dice import SoftDiceLoss
from fcnseg.models.losses.top_k import TopKCrossEntropyLoss
from fcnseg.models.losses.tversky import TverskyLoss

__all__ = [
    "CrossEntropyLoss",
    "DiceCrossEntropyLoss",
    "FocalLoss",
    "SoftDiceLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "build_loss",
]
