"""The cost of a network, computed from its configuration before it is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fcnseg.config import ModelConfig
from fcnseg.networks.shapes import output_shape
from fcnseg.networks.topology import assemble
from fcnseg.volumes import Shape, Zyx

# Training memory besides the activations: each weight, its gradient, Adam's two moments.
_COPIES_OF_WEIGHTS = 4
# Temporary tensors of a step besides the stored ones, in units of a tensor's size; both numbers are
# fitted to steps of the presets on a CPU (docs/models.md). At the loss: logits, probabilities and
# one-hot labels of Dice, cross-entropy and metric, their products and gradients, float32 in every
# precision.
_COPIES_OF_LOGITS = 13
# In the backward pass through a convolution: the gradients of its output and input, those that wait
# for the skip connection, and copies in the layout of the kernels; more if normalisation is not one
# fused kernel.
_COPIES_OF_OUTPUT = 6
_COPIES_OF_OUTPUT_BY_SAMPLE = 9
# Of the input of a cropped skip connection: its zero-padded gradient, that of the pool, and their
# sum.
_COPIES_OF_CROPPED = 3
_FLOAT32 = 4  # bytes


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        name: Name in the network.
        size: Voxels (z, y, x) of its output.
        channels: Channels of its output.
        parameters: Number of trainable parameters.
        macs: Multiply-adds for one patch.
        receptive_field: Voxels (z, y, x) of the input that one voxel of its output depends on, on
            average.
    """

    name: str
    size: Shape
    channels: int
    parameters: int
    macs: int
    receptive_field: Shape

    def row(self) -> tuple[str, str, str, str, str]:
        """The layer as a row of the printed table."""
        counts = (f"{self.channels}", f"{self.parameters:,}", _si(self.macs))
        return (self.name, f"{Zyx(self.size):d}", *counts)


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Cost of a network.

    Attributes:
        layers: From the input to the logits, convolutions and poolings alone.
        patch_size: Voxels (z, y, x) of the input.
        output_size: Voxels (z, y, x) of the logits.
        batch_size: Patches per step.
        parameters: Number of trainable parameters.
        macs: Multiply-adds for one patch, without those of normalisation and activation.
        receptive_field: Voxels (z, y, x) of the input that a voxel of the logits depends on, far
            from borders; the mean, as it differs by a few from voxel to voxel.
        training_bytes: Estimated memory of a training step with Adam.
    """

    layers: tuple[LayerCost, ...]
    patch_size: Shape
    output_size: Shape
    batch_size: int
    parameters: int
    macs: int
    receptive_field: Shape
    training_bytes: int

    def __str__(self) -> str:
        """Formats a table, and the sums below it."""
        rows = [("layer", "voxels out", "channels", "parameters", "multiply-adds")]
        rows += [each.row() for each in self.layers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for name, *numbers in rows:
            aligned = map(str.rjust, numbers, widths[1:])
            lines.append("  ".join([name.ljust(widths[0]), *aligned]))
        return "\n".join([*lines, "", *self._sums()])

    def _sums(self) -> list[str]:
        memory = f"{self.training_bytes / 2**30:.2f} GiB"
        return [
            f"input            {Zyx(self.patch_size):d} voxels (z, y, x)",
            f"logits           {Zyx(self.output_size):d} voxels",
            f"parameters       {self.parameters:,}",
            f"multiply-adds    {_si(self.macs)} a patch",
            f"receptive field  {Zyx(self.receptive_field):d} voxels",
            f"training memory  about {memory} with {self.batch_size} patches a step",
        ]


def model_summary(
    config: ModelConfig,
    *,
    num_classes: int,
    patch_size: Shape,
    batch_size: int = 1,
    precision: str = "float32",
) -> ModelSummary:
    """Computes the cost of a network without building it.

    Args:
        config: The network.
        num_classes: Classes, background included.
        patch_size: Voxels (z, y, x) of the input.
        batch_size: Patches in a training step.
        precision: Keras's precision policy of training; memory depends on it.

    Raises:
        ModelError: If the patch does not fit the network; the message names the nearest sizes that
            do.

    >>> from fcnseg.config import PRESETS
    >>> cicek = PRESETS["unet3d_cicek"].model
    >>> model_summary(cicek, num_classes=8, patch_size=(116, 132, 132)).parameters
    19072712
    """
    output_size = output_shape(config, patch_size)
    counters = []
    for supervised in (False, True):
        counter = _Counter(config, precision)
        hu = _Flow(patch_size, 2 if config.coarse_input else 1)
        logits, *_ = assemble(config, counter, hu, num_classes=num_classes, supervised=supervised)
        counters.append(counter)
    network, training = counters
    return ModelSummary(
        layers=tuple(network.layers),
        patch_size=patch_size,
        output_size=output_size,
        batch_size=batch_size,
        parameters=sum(each.parameters for each in network.layers),
        macs=sum(each.macs for each in network.layers),
        receptive_field=logits.field,
        training_bytes=training.bytes(batch_size),
    )


@dataclasses.dataclass(frozen=True)
class _Flow:
    """A feature map of a network, described by sizes instead of numbers.

    Attributes:
        size: Voxels (z, y, x).
        channels: Number of channels.
        field: Receptive field: voxels (z, y, x) of the input that a voxel depends on.
        step: Voxels (z, y, x) of the input from one voxel to the next.
    """

    size: Shape
    channels: int
    field: Shape = (1, 1, 1)
    step: Shape = (1, 1, 1)

    @property
    def values(self) -> int:
        """Number of values for one patch."""
        return math.prod(self.size) * self.channels

    def seen_by(self, kernel: Shape, stride: Shape) -> _Flow:
        """The feature map after a padded kernel with a stride."""
        field = (f + (k - 1) * s for f, k, s in zip(self.field, kernel, self.step, strict=True))
        size = (-(-n // s) for n, s in zip(self.size, stride, strict=True))
        return dataclasses.replace(
            self, size=Zyx(size), field=Zyx(field), step=_product(self.step, stride)
        )

    def enlarged(self, stride: Shape) -> _Flow:
        """The feature map after upsampling by whole factors."""
        step = (s // k for s, k in zip(self.step, stride, strict=True))
        return dataclasses.replace(self, size=_product(self.size, stride), step=Zyx(step))


class _Counter:
    """Counts costs instead of computing values; see `fcnseg.networks.topology.LayerBuilder`."""

    def __init__(self, config: ModelConfig, precision: str) -> None:
        self.config = config
        self.width = _FLOAT32 if precision == "float32" else 2  # bytes of a number
        # Keras normalises by sample in float32, in the backward pass too.
        self.norm_width = _FLOAT32 if config.norm in ("instance", "group") else self.width
        self.layers: list[LayerCost] = []
        self.kept: dict[int, _Flow] = {}  # tensors stored for the backward pass, each once
        self.kept_bytes = 0  # for one patch
        self.most_bytes = 0  # for one patch, with temporaries of the backward pass at a convolution
        self.logits = 0  # numbers of all outputs, for one patch

    def bytes(self, batch_size: int) -> int:
        """Memory of a training step, at the loss or at a convolution of the backward pass."""
        weights = sum(each.parameters for each in self.layers)
        at_loss = self.kept_bytes + _FLOAT32 * _COPIES_OF_LOGITS * self.logits
        cast = 0 if self.width == _FLOAT32 else self.width * weights
        held = _COPIES_OF_WEIGHTS * _FLOAT32 * weights + cast
        return batch_size * max(at_loss, self.most_bytes) + held

    def window(self, hu: _Flow) -> _Flow:
        """Counts nothing: it has no parameters, and the next convolution keeps its input."""
        return dataclasses.replace(hu)

    def convolution(
        self,
        x: _Flow,
        *,
        filters: int,
        kernel: Shape,
        stride: Shape,
        use_bias: bool,
        activate: bool,
        name: str,
    ) -> _Flow:
        """Counts a product of kernel and covered voxels; the backward pass keeps the input."""
        self._keep(x)
        out = dataclasses.replace(x.seen_by(kernel, stride), channels=filters)
        if self.config.padding == "valid":
            out = dataclasses.replace(
                out, size=Zyx(n - k + 1 for n, k in zip(x.size, kernel, strict=True))
            )
        weights = math.prod(kernel) * x.channels * filters
        macs = math.prod(out.size) * weights
        return self._finished(name, out, weights, macs, use_bias=use_bias, activate=activate)

    def _finished(
        self, name: str, out: _Flow, weights: int, macs: int, *, use_bias: bool, activate: bool
    ) -> _Flow:
        """Counts bias, or scale and shift, per channel, and tensors for the backward pass."""
        norm = self.config.norm
        is_plain = norm == "none"
        own = (0 if is_plain else 2) + (is_plain or use_bias)
        self._add(name, out, weights + own * out.channels, macs)
        if norm != "none":
            self._keep(out, width=self.norm_width)
            out = dataclasses.replace(out)
        self._make(out)
        return self.activation(out, name=name) if activate else out

    def activation(self, x: _Flow, *, name: str) -> _Flow:
        """Counts an activation; the backward pass keeps leaky ReLU's input, or ReLU's output."""
        del name
        out = dataclasses.replace(x)
        self._keep(x if self.config.activation == "leaky_relu" else out)
        return out

    def pool(self, x: _Flow, *, stride: Shape, mean: bool, name: str) -> _Flow:
        """Counts no products; the backward pass of a maximum keeps its input and output."""
        out = x.seen_by(stride, stride)
        self._add(name, out, 0, 0)
        if not mean:
            self._keep(x)
            self._keep(out)
        if self.config.padding == "valid":
            self._make(x, more=_COPIES_OF_CROPPED)
        return out

    def transposed_convolution(self, x: _Flow, *, filters: int, stride: Shape, name: str) -> _Flow:
        """Counts a product of each input voxel and the kernel; backward keeps the input."""
        self._keep(x)
        out = dataclasses.replace(x.enlarged(stride), channels=filters)
        weights = math.prod(stride) * x.channels * filters
        macs = math.prod(x.size) * weights
        return self._finished(name, out, weights, macs, use_bias=False, activate=True)

    def linear_upsampling(self, x: _Flow, *, stride: Shape, name: str) -> _Flow:
        """Counts two neighbours per new voxel, with fixed weights."""
        del name
        field = (f + (s if k > 1 else 0) for f, s, k in zip(x.field, x.step, stride, strict=True))
        return dataclasses.replace(x.enlarged(stride), field=Zyx(field))

    def crop(self, x: _Flow, *, crop: Shape, name: str) -> _Flow:
        """Counts a copy."""
        del name
        size = (n - 2 * c for n, c in zip(x.size, crop, strict=True))
        return dataclasses.replace(x, size=Zyx(size))

    def add(self, tensors: Sequence[_Flow], *, name: str) -> _Flow:
        """Counts a sum; the backward pass keeps nothing."""
        del name
        return _joined(tensors, tensors[0].channels)

    def concatenate(self, tensors: Sequence[_Flow], *, name: str) -> _Flow:
        """Counts a copy of all channels."""
        del name
        return _joined(tensors, sum(each.channels for each in tensors))

    def dropout(self, x: _Flow, *, name: str) -> _Flow:
        """Counts a copy; the mask over channels is too small to count."""
        del name
        return dataclasses.replace(x)

    def softmax(self, x: _Flow, *, name: str) -> _Flow:
        """Counts the probabilities, which the backward pass keeps."""
        del name
        out = dataclasses.replace(x)
        self._keep(out)
        return out

    def head(self, x: _Flow, *, filters: int, name: str) -> _Flow:
        """Counts a 1x1x1 convolution with a bias."""
        self._keep(x)
        out = dataclasses.replace(x, channels=filters)
        self._add(name, out, (x.channels + 1) * filters, x.values * filters)
        self.logits += out.values
        return out

    def channels(self, x: _Flow) -> int:
        """Channels of a feature map."""
        return x.channels

    def _keep(self, x: _Flow, *, width: int = 0) -> None:
        if id(x) not in self.kept:
            self.kept[id(x)] = x
            self.kept_bytes += (width or self.width) * x.values

    def _make(self, x: _Flow, *, more: int = 0) -> None:
        """Counts temporaries of the backward pass at a tensor and all that is stored by then."""
        by_sample = self.config.norm in ("instance", "group")
        copies = (_COPIES_OF_OUTPUT_BY_SAMPLE if by_sample else _COPIES_OF_OUTPUT) + more
        made = copies * self.norm_width * x.values
        self.most_bytes = max(self.most_bytes, self.kept_bytes + made)

    def _add(self, name: str, out: _Flow, parameters: int, macs: int) -> None:
        cost = LayerCost(name, out.size, out.channels, parameters, macs, out.field)
        self.layers.append(cost)


def _joined(tensors: Sequence[_Flow], channels: int) -> _Flow:
    first = tensors[-1]
    field = (max(sizes) for sizes in zip(*(each.field for each in tensors), strict=True))
    return dataclasses.replace(first, channels=channels, field=Zyx(field))


def _product(first: Shape, second: Shape) -> Shape:
    return Zyx(a * b for a, b in zip(first, second, strict=True))


def _si(number: int) -> str:
    """Formats a large number with an SI prefix: 1.25 G."""
    for power, sign in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {sign}"
    return str(number)
