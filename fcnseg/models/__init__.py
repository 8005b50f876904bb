"""The network, its losses and its metrics."""

from fcnseg.models.deep_supervision import DeeplySupervised, level_weights
from fcnseg.models.fcn import build_fcn, full_resolution
from fcnseg.models.hu_window import HUWindow
from fcnseg.models.losses import (
    CrossEntropyLoss,
    DiceCrossEntropyLoss,
    FocalLoss,
    SoftDiceLoss,
    TopKCrossEntropyLoss,
    TverskyLoss,
    build_loss,
)
from fcnseg.models.metrics import OrganDice

__all__ = [
    "CrossEntropyLoss",
    "DeeplySupervised",
    "DiceCrossEntropyLoss",
    "FocalLoss",
    "HUWindow",
    "OrganDice",
    "SoftDiceLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "build_fcn",
    "build_loss",
    "full_resolution",
    "level_weights",
]
