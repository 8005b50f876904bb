"""The network, its losses and its metrics."""

from fcnseg.models.fcn import build_fcn
from fcnseg.models.geometry import output_shape
from fcnseg.models.layers import HUWindow
from fcnseg.models.losses import DiceCrossEntropyLoss, SoftDiceLoss
from fcnseg.models.metrics import OrganDice

__all__ = [
    "DiceCrossEntropyLoss",
    "HUWindow",
    "OrganDice",
    "SoftDiceLoss",
    "build_fcn",
    "output_shape",
]
