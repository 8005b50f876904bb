"""A loss from its configuration."""

from __future__ import annotations

import keras

from fcnseg.config import SETTINGS_OF_LOSS, LossConfig
from fcnseg.losses.cross_entropy import CrossEntropyLoss
from fcnseg.losses.dice_cross_entropy import DiceCrossEntropyLoss
from fcnseg.losses.focal import FocalLoss
from fcnseg.losses.soft_dice import SoftDiceLoss
from fcnseg.losses.top_k import TopKCrossEntropyLoss
from fcnseg.losses.tversky import TverskyLoss

_LOSSES: dict[str, type[keras.losses.Loss]] = {
    "dice": SoftDiceLoss,
    "dice_cross_entropy": DiceCrossEntropyLoss,
    "tversky": TverskyLoss,
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "top_k_cross_entropy": TopKCrossEntropyLoss,
}


def build_loss(config: LossConfig) -> keras.losses.Loss:
    """Builds the loss that a configuration names, with those of its settings that the loss has."""
    settings = {key: getattr(config, key) for key in SETTINGS_OF_LOSS[config.name]}
    return _LOSSES[config.name](**settings)
