"""The 3D fully convolutional network: encoder, decoder and a skip connection at each level."""

from __future__ import annotations

import keras

from fcnseg.config import ModelConfig
from fcnseg.losses.deep_supervision import DeeplySupervised
from fcnseg.networks import output_shape
from fcnseg.networks.keras_builder import KerasBuilder
from fcnseg.networks.topology import LOGITS, assemble
from fcnseg.volumes import Shape


def build_fcn(
    config: ModelConfig,
    *,
    num_classes: int,
    input_shape: Shape | None = None,
    precision: str = "float32",
    supervised: bool = False,
) -> keras.Model:
    """Builds a network from HU to logits.

    Each level of the encoder has two convolutions, or residual blocks of two, and is reached by
    max-pooling, or the stride of its first block; the decoder upsamples level by level, joins the
    encoder's output of the same level, and has some convolutions there; a 1x1x1 convolution makes
    the logits. Normalisation and activation follow every convolution but the last. With
    normalisation, only the first and the last convolution have a bias. Weights are initialised as
    by He et al. 2015 from Keras's global random generator (`keras.utils.set_random_seed`).

    Args:
        config: Depth, channels, skip connections, padding, normalisation...
        num_classes: Classes, background included.
        input_shape: Voxels (z, y, x), if the network is for one size only; any by default.
        precision: Keras's policy for the layers between the HU window and the logits.
        supervised: Adds, for training, the logits of coarser levels that `deep_supervision` and
            `pyramid` ask for; see `full_resolution`.

    Returns:
        A model from HU float32 (batch, z, y, x, 1), or 2 channels with `coarse_input`, to logits
        float32 (batch, z, y, x, classes); if there are others, a `DeeplySupervised` one to a list
        of them, full resolution first, in the order of `supervision_strides`.

    Raises:
        ModelError: If `input_shape` does not fit the levels; the message names the nearest sizes
            that do.
    """
    if input_shape is not None:
        output_shape(config, input_shape)
    channels = 2 if config.coarse_input else 1
    hu = keras.Input((*(input_shape or (None, None, None)), channels), name="hu")
    logits = assemble(
        config,
        KerasBuilder(config, precision),
        hu,
        num_classes=num_classes,
        supervised=supervised,
    )
    if len(logits) > 1:
        return DeeplySupervised(hu, logits, name="fcn")
    return keras.Model(hu, logits[0], name="fcn")


def full_resolution(model: keras.Model) -> keras.Model:
    """Extracts the part of a network that gives the full-resolution logits, sharing its weights.

    This part is validated, saved and exported; the other logits are for training only.

    Args:
        model: Built by `build_fcn`.
    """
    if not isinstance(model.output, list):
        return model
    return keras.Model(model.input, model.get_layer(LOGITS).output, name=model.name)
