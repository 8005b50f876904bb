"""The table of all that fcnseg gives Keras, for the guarantees of test_conformance.py.

A row is a `Subject`; what a guarantee does not apply to is in `NOT_APPLICABLE`, with its reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fcnseg import losses
from fcnseg.config import PRESETS, ModelConfig
from fcnseg.errors import ModelError
from fcnseg.losses import DeeplySupervised, OrganDice
from fcnseg.networks import output_shape
from fcnseg.networks.build import build_fcn
from fcnseg.networks.layers import HUWindow
from fcnseg.networks.layers.conv_batch_norm_act import (
    ConvBatchNormAct,
    ConvTransposeBatchNormAct,
)
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.upsampling import LinearUpsampling, NonOverlappingConv3DTranspose
from fcnseg.volumes import Shape

CLASSES = ("background", "liver", "spleen")
IGNORED = 255


@dataclasses.dataclass(frozen=True)
class Subject:
    """One row.

    Attributes:
        kind: `layer`, `loss`, `metric` or `network`.
        make: Makes it for a precision policy, always the same.
        size: Voxels (z, y, x) that it is tried on.
    """

    kind: str
    make: Callable[[str], Any]
    size: Shape = (4, 4, 6)

    def inputs(self, samples: int = 2) -> tuple[np.ndarray, ...]:
        """HU of a layer or network; labels, some of them ignored, and logits of the others."""
        shape = (samples, *self.size)
        if self.kind in ("layer", "network"):
            rng = np.random.default_rng(0)
            return (rng.uniform(-1000, 1000, (*shape, 1)).astype(np.float32),)
        logits = np.random.default_rng(1).normal(0, 2, (*shape, len(CLASSES))).astype(np.float32)
        return make_labels(shape), logits

    def outputs(self, thing: Any, inputs: Sequence[Any], *, gradients: bool = False) -> list[Any]:
        """What it computes of a batch, as tensors.

        A layer's or network's outputs; a loss of each sample and its gradient; a metric's results.

        Args:
            thing: What `make` gave.
            inputs: As `inputs` gives them.
            gradients: Whether a layer or network gives those of its weights too.
        """
        if self.kind == "metric":
            thing.reset_state()
            thing.update_state(*inputs)
            return list(thing.result().values())
        if self.kind == "loss":
            labels, logits = (tf.convert_to_tensor(x) for x in inputs)
            with tf.GradientTape() as tape:
                tape.watch(logits)
                losses = thing.call(labels, logits)
            return [losses, tape.gradient(losses, logits)]
        if not gradients:
            return tf.nest.flatten(thing(*inputs))
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(thing(*inputs))
            total = tf.add_n([tf.reduce_mean(tf.cast(output, tf.float32)) for output in outputs])
        return [*outputs, *tape.gradient(total, thing.trainable_variables)]


def make_labels(shape: tuple[int, ...]) -> np.ndarray:
    """Random labels, some of them ignored."""
    rng = np.random.default_rng(0)
    return rng.choice([0, 1, 2, IGNORED], shape, p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)


def loss(name: str, **settings: Any) -> Subject:
    """The row of a loss, with settings that are not its defaults."""
    made = getattr(losses, name)
    return Subject("loss", lambda _: made(ignore_label=IGNORED, **settings))


def presets() -> dict[str, Subject]:
    """Rows of presets; those that differ in width and depth alone share one."""
    names: dict[ModelConfig, list[str]] = {}
    for name, config in PRESETS.items():
        names.setdefault(small(config.model), []).append(name)
    return {f"preset {' '.join(same)}": network(config) for config, same in names.items()}


def small(config: ModelConfig) -> ModelConfig:
    """The same with three levels, few channels, and no more than two blocks a level."""
    return dataclasses.replace(
        config,
        filters=tuple(2 * width // config.filters[0] for width in config.filters[:3]),
        residual_blocks=tuple(min(blocks, 2) for blocks in config.residual_blocks[:3]),
        deep_supervision=min(config.deep_supervision, 1),
    )


def network(config: ModelConfig) -> Subject:
    """The row of a network as it is in training, on the smallest input that fits."""

    def make(precision: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        return build_fcn(config, num_classes=len(CLASSES), precision=precision, supervised=True)

    return Subject("network", make, smallest_input(config))


def smallest_input(config: ModelConfig) -> Shape:
    """Of which at least two voxels come out along each axis."""

    def fits(length: int) -> bool:
        try:
            return output_shape(config, (length,) * 3)[0] >= 2
        except ModelError:
            return False

    length = next(filter(fits, itertools.count(2)))
    return (length, length, length)


KERNEL = keras.initializers.Constant(0.5)


def up_sampling(made: type[keras.layers.Layer]) -> Subject:
    """The row of a transposed convolution, to 2 x 2 x 1 the voxels."""
    stride = (2, 2, 1)
    options = {"strides": stride, "kernel_initializer": KERNEL}
    return Subject("layer", lambda precision: made(3, stride, dtype=precision, **options))


def normalized(precision: str) -> keras.layers.Layer:
    """A convolution with batch norm."""
    return ConvBatchNormAct(3, 3, padding="same", kernel_initializer=KERNEL, dtype=precision)


def two_levels(precision: str) -> keras.Model:
    """A network with two outputs."""
    keras.utils.set_random_seed(0)
    hu = keras.Input((4, 4, 6, 1))
    x = HUWindow(-200.0, 300.0, dtype="float32")(hu)
    x = keras.layers.Conv3D(4, 3, padding="same", dtype=precision)(x)
    fine = keras.layers.Conv3D(len(CLASSES), 1, dtype="float32", name="fine")(x)
    coarse = keras.layers.Conv3D(len(CLASSES), 2, strides=2, dtype="float32", name="coarse")(x)
    return DeeplySupervised(hu, [fine, coarse])


SUBJECTS: dict[str, Subject] = {
    "HUWindow": Subject("layer", lambda precision: HUWindow(-200.0, 300.0, dtype=precision)),
    "BatchNormalization": Subject("layer", lambda precision: BatchNormalization(dtype=precision)),
    "NonOverlappingConv3DTranspose": up_sampling(NonOverlappingConv3DTranspose),
    "ConvBatchNormAct": Subject("layer", normalized),
    "ConvTransposeBatchNormAct": up_sampling(ConvTransposeBatchNormAct),
    "LinearUpsampling": Subject("layer", lambda p: LinearUpsampling((1, 2, 3), dtype=p)),
    "SoftDiceLoss": loss("SoftDiceLoss", class_weights="square", include_background=False),
    "DiceCrossEntropyLoss": loss(
        "DiceCrossEntropyLoss",
        class_weights=[0.5, 1.0, 2.0],
        class_balance=0.5,
        label_smoothing=0.1,
    ),
    "TverskyLoss": loss(
        "TverskyLoss", class_weights="simple", batch_dice=False, alpha=0.2, beta=0.8
    ),
    "CrossEntropyLoss": loss(
        "CrossEntropyLoss",
        class_weights=[0.5, 1.0, 2.0],
        class_balance=0.5,
        label_smoothing=0.2,
    ),
    "FocalLoss": loss("FocalLoss", class_weights=[0.5, 1.0, 2.0], gamma=1.5),
    "TopKCrossEntropyLoss": loss("TopKCrossEntropyLoss", fraction=0.2, label_smoothing=0.1),
    "OrganDice": Subject("metric", lambda _: OrganDice(CLASSES, ignore_label=IGNORED)),
    "DeeplySupervised": Subject("network", two_levels),
    **presets(),
}

REPLICAS = "one replica equals two"

NOT_APPLICABLE = {
    ("preset unet3d_cicek", REPLICAS): "its batch norm is each replica's own, as it was released",
    ("preset fast demo", REPLICAS): "their batch norm is each replica's own, for one device",
}

# What fcnseg.losses exports besides.
FUNCTIONS = {"build_loss", "level_weights"}


def applies(name: str, guarantee: str) -> bool:
    """Whether a cell of the table is to be tested."""
    return (name, guarantee) not in NOT_APPLICABLE
