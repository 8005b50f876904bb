"""The sections of a configuration: immutable values, checked on construction."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import pydantic
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fcnseg.config.renamed import with_new_names

# Voxels along (z, y, x).
Size = tuple[PositiveInt, PositiveInt, PositiveInt]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
Fractions = tuple[Fraction, Fraction, Fraction]
NonNegativeTriple = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]
Factor = Annotated[float, pydantic.Field(ge=1)]
# Lowest and highest.
PositiveRange = tuple[PositiveFloat, PositiveFloat]

_STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The network, from HU to one logit per class."""

    filters: Annotated[tuple[PositiveInt, ...], pydantic.Field(min_length=2)] = (16, 32, 64)
    """Output channels of each level of the encoder; their number is the depth."""
    kernels: tuple[Size, ...] = ()
    """Kernel size (z, y, x) of the convolutions of each level, all odd; by default 3 3 3
    everywhere."""
    strides: tuple[Size, ...] = ()
    """Strides (z, y, x) from each level down to the next; by default 2 2 2 everywhere."""
    residual_blocks: tuple[PositiveInt, ...] = ()
    """Residual blocks of each level of the encoder, of two convolutions each, after one convolution
    at the top; by default none, but two plain convolutions per level."""
    decoder_convolutions: PositiveInt = 2
    """Convolutions of each level of the decoder."""
    widen: Literal["first", "last"] = "first"
    """The convolution of an encoder level that widens; `last`: the first one has half the
    channels."""
    skip: Literal["sum", "concat"] = "sum"
    """Sum or concatenation of skip connections and decoder features."""
    upsampling: Literal["transposed", "linear"] = "transposed"
    """Upsampling in the decoder: transposed convolutions, or 1x1x1 ones and linear
    interpolation."""
    padding: Literal["same", "valid"] = "same"
    """Padding; with `valid` no convolution pads, so the output is smaller than the input."""
    norm: Literal["batch", "sync_batch", "instance", "group", "none"] = "batch"
    """Normalisation after each convolution."""
    activation: Literal["relu", "leaky_relu"] = "relu"
    """Activation after each normalisation."""
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Dropout rate of the channels at the lowest level while training."""
    l2: NonNegativeFloat = 0.0
    """L2 weight decay: weight, in the loss, of the sum of squares of all kernels."""
    deep_supervision: NonNegativeInt = 0
    """Levels below the full resolution with logits of their own while training (deep
    supervision)."""
    pyramid: PositiveInt = 1
    """Cascaded networks, each at twice the resolution of the one before, whose prediction it sees.
    """
    coarse_input: bool = False
    """Adds a second input channel: a coarse prediction, 0 to 1, on the same grid."""
    hu_window: tuple[float, float] = (-200.0, 300.0)
    """HU mapped to 0 and 1 by the network's first layer; values beyond are clipped."""

    def __post_init__(self) -> None:
        low, high = self.hu_window
        if not low < high:
            raise ValueError(f"hu_window must be (low, high) with low < high, got {self.hu_window}")
        _check_levels(self)
        if self.padding == "valid":
            _check_without_padding(self)

    @property
    def depth(self) -> int:
        """Levels of the network."""
        return len(self.filters)


def _check_levels(model: ModelConfig) -> None:
    """Checks that settings per level have one value for each level."""
    lengths = {"kernels": model.depth, "strides": model.depth - 1, "residual_blocks": model.depth}
    for name, length in lengths.items():
        if len(getattr(model, name)) not in (0, length):
            raise ValueError(
                f"{name} must have {length} entries for {model.depth} levels, or none,"
                f" got {getattr(model, name)}"
            )
    if any(size % 2 == 0 for kernel in model.kernels for size in kernel):
        raise ValueError(f"kernels must be odd along each axis, got {model.kernels}")
    if model.residual_blocks and model.widen == "last":
        raise ValueError("widen must be first where there are residual_blocks, got last")
    if model.deep_supervision > model.depth - 2:
        raise ValueError(
            f"deep_supervision must be at most {model.depth - 2}, the levels of the decoder below"
            f" the top, got {model.deep_supervision}"
        )


def _check_without_padding(model: ModelConfig) -> None:
    """Refuses settings that need an output of the input's size."""
    for name in ("residual_blocks", "deep_supervision"):
        if getattr(model, name):
            raise ValueError(f"padding must be same where there is {name}, got valid")
    if model.pyramid > 1:
        raise ValueError(f"padding must be same where pyramid is {model.pyramid}, got valid")


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class PatchConfig:
    """Sampling of patches from the records."""

    size: Size = (64, 64, 64)
    """Voxels (z, y, x) of a patch, which is also the window of prediction."""
    batch_size: PositiveInt = 2
    """Patches per step on each replica."""
    foreground_fraction: Fraction = 0.67
    """Probability that a patch is drawn for an organ of its case, all organs being equally likely,
    and contains a drawn voxel of it: at the centre, or at most `augmentation.translation_voxels`
    from there."""
    samples_per_volume: PositiveInt = 4
    """Patches drawn from a record each time it is read."""
    shuffle_buffer: PositiveInt = 64
    """Patches in the shuffle buffer."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return with_new_names("patches", values) if isinstance(values, dict) else values


_OVERLAP = ("class_weights", "batch_dice", "include_background", "ignore_label")

SETTINGS_OF_LOSS: dict[str, tuple[str, ...]] = {
    "dice": _OVERLAP,
    "dice_cross_entropy": (*_OVERLAP, "class_balance", "label_smoothing"),
    "tversky": (*_OVERLAP, "alpha", "beta"),
    "cross_entropy": ("class_weights", "class_balance", "ignore_label", "label_smoothing"),
    "focal": ("class_weights", "ignore_label", "gamma"),
    "top_k_cross_entropy": ("class_weights", "ignore_label", "label_smoothing", "fraction"),
}
"""Settings that each loss has."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """The loss of training. A setting that the named loss does not have must keep its default."""

    name: Literal[
        "dice", "dice_cross_entropy", "tversky", "cross_entropy", "focal", "top_k_cross_entropy"
    ] = "dice_cross_entropy"
    """Multi-class soft Dice, alone or with the cross-entropy; or another loss (docs/losses.md)."""
    class_weights: Literal["uniform", "simple", "square"] | tuple[NonNegativeFloat, ...] = "uniform"
    """Class weights: equal, by inverse or inverse squared frequency, or one number per class."""
    class_balance: Fraction = 0.5
    """Exponent b of the weight f^-b of a class of frequency f in the cross-entropy: 0 weighs voxels
    equally, 1 classes equally. At 0.5 small organs are found early and large ones stay sharp."""
    batch_dice: bool = True
    """Compute the Dice over all voxels of the global batch, instead of the mean of each patch's
    Dice."""
    include_background: bool = True
    """Include the background in the Dice."""
    ignore_label: NonNegativeInt | None = None
    """Class index of voxels that loss and metrics ignore, if the label map does not define it
    already."""
    alpha: NonNegativeFloat = 0.3
    """Tversky's weight of false positives."""
    beta: NonNegativeFloat = 0.7
    """Tversky's weight of false negatives."""
    gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss (gamma)."""
    fraction: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1
    """Fraction of the voxels, those with the largest loss, that the top-k cross-entropy
    averages."""
    label_smoothing: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Label smoothing of the cross-entropy: weight of the uniform distribution in the reference."""
    level_weights: tuple[NonNegativeFloat, ...] = ()
    """Weight of each output of a network with deep supervision, full resolution first; by default
    each half of the one before, with sum 1. nnU-Net gives the last one 0."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return with_new_names("loss", values) if isinstance(values, dict) else values

    def __post_init__(self) -> None:
        known = ("name", "ignore_label", "level_weights", *SETTINGS_OF_LOSS[self.name])
        for field in dataclasses.fields(self):
            if field.name not in known and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"loss.{field.name} must be left alone where loss.name is {self.name},"
                    f" got {getattr(self, field.name)}"
                )
        if self.class_weights in ("simple", "square") and "batch_dice" not in known:
            raise ValueError(
                f"loss.class_weights must be uniform or numbers where loss.name is {self.name},"
                f" got {self.class_weights}"
            )
        _check_weights(self)

    def counts(self, index: int) -> bool:
        """Tells whether a class can contribute to the loss; one beyond the weights cannot."""
        if index == self.ignore_label or (index == 0 and not self.include_background):
            return False
        if isinstance(self.class_weights, str):
            return True
        return index < len(self.class_weights) and self.class_weights[index] > 0


def _check_weights(loss: LossConfig) -> None:
    """Refuses weights that make the loss independent of the network's output."""
    weights = loss.class_weights
    if not isinstance(weights, str) and not any(map(loss.counts, range(len(weights)))):
        but = "" if loss.include_background else ", the background aside"
        but += "" if loss.ignore_label is None else f", class {loss.ignore_label} is ignored"
        raise ValueError(
            f"loss.class_weights must not be 0 for all that counts, got {weights}{but}"
        )
    if loss.name == "tversky" and loss.alpha == loss.beta == 0:
        raise ValueError("loss.alpha and loss.beta must not both be 0: the loss would always be 0")
    if loss.level_weights and not loss.level_weights[0] > 0:
        raise ValueError(
            "loss.level_weights must be above 0 for the first output, which is the one that"
            f" predicts, got {loss.level_weights}"
        )


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class AugmentationConfig:
    """Augmentation of training patches, drawn again for each patch; by default none.

    Triples are for (z, y, x). Draws are uniform; what moves voxels reaches every patch.
    """

    run_on: Literal["host", "device"] = "host"
    """`host`: inside tf.data, on the CPU. `device`: in front of the network, on the accelerator."""
    rotation_degrees: NonNegativeTriple = (0.0, 0.0, 0.0)
    """Largest rotation about each axis, in either direction; in mm, so thick slices are not
    sheared."""
    scale: PositiveRange = (1.0, 1.0)
    """Range of the factor by which the patient is scaled."""
    flip: Fractions = (0.0, 0.0, 0.0)
    """Probability that an axis is flipped; organs have sides, so take care with the x axis."""
    translation_voxels: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (0, 0, 0)
    """Largest distance of an organ's drawn voxel from the patch's centre along each axis, in either
    direction; uniform over the whole voxels that keep the patch inside the volume."""
    deformation_voxels: NonNegativeTriple = (0.0, 0.0, 0.0)
    """Largest displacement drawn for a control point of the cubic B-spline that bends a patch."""
    deformation_of: Literal["coefficients", "field", "polyharmonic"] = "coefficients"
    """Meaning of the drawn displacements: the `coefficients` of the spline, which smooths them, or
    values of the `field` at the control points, which a B-spline interpolates, or a `polyharmonic`
    spline of tensorflow-addons (docs/addons.md)."""
    control_spacing_voxels: tuple[Factor, Factor, Factor] = (24.0, 24.0, 24.0)
    """Distance between its control points, at least a voxel."""
    intensity_probability: Fraction = 0.2
    """Probability with which each of the changes below is applied to a patch."""
    noise_hu: NonNegativeFloat = 0.0
    """Largest standard deviation of Gaussian noise."""
    blur_mm: NonNegativeFloat = 0.0
    """Largest standard deviation of a Gaussian blur."""
    low_resolution: tuple[Factor, Factor, Factor] = (1.0, 1.0, 1.0)
    """Largest factor of simulated low resolution: thick slices are (3, 1, 1)."""
    brightness_hu: NonNegativeFloat = 0.0
    """Largest shift of HU, in either direction."""
    contrast: PositiveRange = (1.0, 1.0)
    """Factor of HU, which leaves water unchanged."""
    gamma: PositiveRange = (1.0, 1.0)
    """Exponent of the gamma correction within `gamma_window`; HU outside it are unchanged."""
    gamma_window: tuple[float, float] = (-200.0, 300.0)
    """HU whose ends gamma leaves unchanged; by default those of the network's first layer."""

    def __post_init__(self) -> None:
        for name in ("scale", "contrast", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (lowest, highest), got {(low, high)}")
        low, high = self.gamma_window
        if not low < high:
            raise ValueError(f"gamma_window must be (low, high), low < high, got {(low, high)}")

    @property
    def warps(self) -> bool:
        """True if patches are resampled; a shift by whole voxels needs no resampling."""
        moved = (*self.rotation_degrees, *self.flip, *self.deformation_voxels)
        return any(moved) or self.scale != (1, 1)

    @property
    def changes_hu(self) -> bool:
        """True if HU are changed."""
        sizes = (self.noise_hu, self.blur_mm, self.brightness_hu)
        factors = (*self.low_resolution, *self.contrast, *self.gamma)
        changed = any(sizes) or any(factor != 1 for factor in factors)
        return self.intensity_probability > 0 and changed


# Adam's first steps follow gradients of an untrained network (docs/decisions/0019).
_WARM_UP_STEPS = 50


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """Training of the network."""

    epochs: PositiveInt = 100
    steps_per_epoch: PositiveInt = 250
    optimizer: Literal["adam", "adamw", "sgd", "lamb", "radam", "novograd", "yogi", "adabelief"] = (
        "adam"
    )
    """Adam, Adam with decoupled weight decay, gradient descent with Nesterov's momentum, LAMB, or
    an optimizer that only tensorflow-addons has (docs/addons.md)."""
    optimizer_wrapper: Literal["none", "lookahead", "swa", "moving_average"] = "none"
    """Wrapper of tensorflow-addons around the optimizer (docs/addons.md)."""
    lookahead_steps: PositiveInt = 6
    """Steps between two updates of lookahead's slow weights; by default tensorflow-addons'."""
    swa_start: Fraction = 0.75
    """Fraction of the epochs before those whose last weights swa averages (Izmailov et al.
    2018)."""
    learning_rate: PositiveFloat = 1e-3
    """Initial learning rate, after the warm-up."""
    weight_decay: NonNegativeFloat = 1e-2
    """Decoupled weight decay of adamw, times the learning rate; by default PyTorch's."""
    momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.99
    """Momentum of sgd; by default nnU-Net's."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest global norm of the gradient; 0 for no clipping."""
    schedule: Literal["cosine", "poly", "step", "constant"] = "cosine"
    """Learning-rate schedule: half a cosine or a power down to 0 at the end, or steps."""
    warmup_steps: NonNegativeInt | None = None
    """Warm-up steps, in which the learning rate rises from near 0; by default 50, or a tenth of a
    run of fewer than 500 steps."""
    poly_power: PositiveFloat = 0.9
    """Exponent of the schedule poly; by default nnU-Net's."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Milestones of the schedule step, as fractions of the run (He et al. 2015)."""
    gamma: PositiveFloat = 0.1
    """Factor of the learning rate at each milestone."""
    ema_decay: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """EMA decay: the exponential moving average of the weights is validated and saved in their
    place; 0 for no average."""
    patience: NonNegativeInt = 0
    """Early-stopping patience: validations in a row without a better network; 0 for no early
    stopping."""
    time_limit_hours: NonNegativeFloat = 0.0
    """Hours of training, over all its processes, after which the run ends with its epoch; 0 for no
    limit."""
    accumulate_steps: PositiveInt = 1
    """Gradient accumulation steps: micro-batches of `patches.batch_size` per optimizer step."""
    steps_per_execution: PositiveInt = 1
    """Steps that TensorFlow runs in one call; the results are the same."""
    jit_compile: bool = False
    """Compile the step with XLA, on one device; on a CPU it then takes ten times as long."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras's precision policy; losses, metrics and logits stay float32."""
    validate_every: PositiveInt = 1
    """Epochs between validations on whole volumes."""
    checkpoint_every: PositiveInt = 250
    """Steps between checkpoints, which are also written after each validation and on preemption."""
    tensorboard: bool = True
    """Write events for TensorBoard, pictures of validation cases among them."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    """Seed of every random draw of the run."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return with_new_names("training", values) if isinstance(values, dict) else values

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)) or {0.0, 1.0} & set(
            self.milestones
        ):
            raise ValueError(
                "milestones must be increasing fractions of the run, each above 0 and below 1,"
                f" got {self.milestones}"
            )
        self._check_averages()
        if self.warmup >= self.epochs * self.steps_per_epoch:
            raise ValueError(
                f"warmup_steps must be fewer than the steps of the run,"
                f" {self.epochs * self.steps_per_epoch}, got {self.warmup_steps}"
            )

    def _check_averages(self) -> None:
        """Checks that there is one average of the weights at most, and a decay if it needs one."""
        if self.optimizer_wrapper == "swa" and self.ema_decay:
            raise ValueError(
                f"ema_decay must be 0 where optimizer_wrapper is swa, got {self.ema_decay}: one"
                " average of the weights is validated and saved"
            )
        if self.optimizer_wrapper == "moving_average" and not self.ema_decay:
            raise ValueError("ema_decay must be above 0 where optimizer_wrapper is moving_average")

    @property
    def warmup(self) -> int:
        """Warm-up steps, the default of `warmup_steps` resolved."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(_WARM_UP_STEPS, self.epochs * self.steps_per_epoch // 10)


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class InferenceConfig:
    """Segmentation of a whole volume, fixed at export."""

    overlap: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (16, 16, 16)
    """Voxels (z, y, x) by which neighbouring windows overlap at least."""
    batch_size: PositiveInt = 1
    """Windows per call of the network."""
    max_voxels: PositiveInt = 512 * 512 * 2000
    """Voxels above which a volume is refused (512 x 512 x 2000 is the largest CT users of the field
    report)."""
    skip_air: bool = True
    """Treat air around the body as background, and skip windows that contain nothing else."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Config:
    """The configuration of a run."""

    model: ModelConfig = ModelConfig()
    patches: PatchConfig = PatchConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    def __post_init__(self) -> None:
        for overlap, size in zip(self.inference.overlap, self.patches.size, strict=True):
            if overlap >= size:
                raise ValueError(
                    f"inference.overlap must be smaller than patches.size along each axis, "
                    f"got {self.inference.overlap} and {self.patches.size}"
                )
        outputs = self.model.deep_supervision + self.model.pyramid
        if len(self.loss.level_weights) not in (0, outputs):
            raise ValueError(
                f"loss.level_weights must be one number an output, or none, got"
                f" {self.loss.level_weights} for {outputs} outputs"
            )
