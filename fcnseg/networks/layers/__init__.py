"""Keras layers of the networks; importing this package registers those of saved networks."""

from fcnseg.networks.layers.hu_window import HUWindow
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.normalized_convolution import (
    NormalizedConvolution,
    NormalizedConvolutionTranspose,
)
from fcnseg.networks.layers.upsampling import BlockConvolutionTranspose, LinearUpsampling

__all__ = [
    "BatchNormalization",
    "BlockConvolutionTranspose",
    "HUWindow",
    "LinearUpsampling",
    "NormalizedConvolution",
    "NormalizedConvolutionTranspose",
]
