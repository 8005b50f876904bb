"""Keras layers of the networks; importing this package registers those of saved networks."""

from fcnseg.networks.layers.conv_batch_norm_act import (
    ConvBatchNormAct,
    ConvTransposeBatchNormAct,
)
from fcnseg.networks.layers.hu_window import HUWindow
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.upsampling import LinearUpsampling, NonOverlappingConv3DTranspose

__all__ = [
    "BatchNormalization",
    "ConvBatchNormAct",
    "ConvTransposeBatchNormAct",
    "HUWindow",
    "LinearUpsampling",
    "NonOverlappingConv3DTranspose",
]
