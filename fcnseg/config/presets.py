"""Presets: ready configurations, by name."""

from __future__ import annotations

import dataclasses

from fcnseg.config.sections import (
    AugmentationConfig,
    Config,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    PatchConfig,
    Size,
    TrainingConfig,
)

# B-spline deformation, rotation and translation of Roth et al. 2018 (arXiv 1803.08691).
_ROTH2018 = AugmentationConfig(
    rotation_degrees=(20, 20, 20),
    translation_voxels=(20, 20, 20),
    deformation_voxels=(4, 4, 4),
    control_spacing_voxels=(24, 24, 24),
)
# The same with the variation of scanners and patients: kinds and probabilities of changes as in
# nnU-Net (Isensee et al. 2021), their sizes in HU and mm our own choice.
_FCN = dataclasses.replace(
    _ROTH2018,
    scale=(0.9, 1.1),
    noise_hu=25.0,
    blur_mm=1.0,
    low_resolution=(2.0, 1.5, 1.5),
    brightness_hu=20.0,
    contrast=(0.85, 1.15),
    gamma=(0.75, 1.35),
)


def _fcn(filters: tuple[int, ...], blocks: tuple[int, ...], *, patch: Size) -> Config:
    """A network with a residual encoder."""
    z, y, x = patch
    return Config(
        model=ModelConfig(
            filters=filters,
            residual_blocks=blocks,
            decoder_convolutions=1,
            skip="concat",
            norm="instance",
            activation="leaky_relu",
            deep_supervision=len(filters) - 2,
        ),
        patches=PatchConfig(size=patch, batch_size=2),
        augmentation=_FCN,
        training=TrainingConfig(epochs=200, steps_per_epoch=250),
        inference=InferenceConfig(overlap=(z // 2, y // 2, x // 2)),
    )


PRESETS: dict[str, Config] = {
    # Roth et al. 2018 (arXiv 1803.08691): 3D FCN with encoder, decoder, skip connections and
    # transposed convolutions. Summation skips are arXiv 1711.06439's, Dice loss with uniform
    # weights and learning rate 1e-3 arXiv 1801.05912's. Channels, depth, window and patch are our
    # own choice: the paper's are not known to us.
    "roth2018": Config(
        model=ModelConfig(filters=(32, 64, 128, 256), skip="sum", norm="sync_batch"),
        patches=PatchConfig(size=(64, 96, 96), batch_size=2),
        loss=LossConfig(name="dice"),
        augmentation=_ROTH2018,
        training=TrainingConfig(epochs=200, steps_per_epoch=250),
        inference=InferenceConfig(overlap=(32, 48, 48)),
    ),
    # The group's first network (arXiv 1704.06382), the 3D U-Net of Çiçek et al. 2016: 19,072,712
    # trainable parameters, 132x132x116 voxels in and 44x44x28 out.
    "unet3d_cicek": Config(
        model=ModelConfig(
            filters=(64, 128, 256, 512), widen="last", skip="concat", padding="valid", norm="batch"
        ),
        patches=PatchConfig(size=(116, 132, 132), batch_size=1),
        training=TrainingConfig(epochs=200, steps_per_epoch=250),
        inference=InferenceConfig(overlap=(0, 0, 0)),
    ),
    # Residual encoders as in nnU-Net (Isensee et al. 2024, arXiv 2404.09556: stem, blocks per
    # level, one convolution per decoder level, instance norm, leaky ReLU, a loss at each decoder
    # level), in three sizes of our own; `fcnseg summary` shows the cost of each.
    "fcn_s": _fcn((16, 32, 64, 128), (1, 2, 3, 4), patch=(64, 64, 64)),
    "fcn_m": _fcn((32, 64, 128, 256), (1, 3, 4, 6), patch=(96, 96, 96)),
    "fcn_l": _fcn((32, 64, 128, 256, 320), (1, 3, 4, 6, 6), patch=(128, 128, 128)),
    # For CPUs, with records of about 2.5 mm: batch norm and ReLU, which inference joins with the
    # convolution before them, few channels, and wide windows that overlap by a quarter.
    "fast": Config(
        model=ModelConfig(filters=(16, 32, 64, 128), skip="sum", deep_supervision=2),
        patches=PatchConfig(size=(64, 96, 96), batch_size=2),
        augmentation=_FCN,
        training=TrainingConfig(epochs=200, steps_per_epoch=250),
        inference=InferenceConfig(overlap=(16, 24, 24), batch_size=2),
    ),
    # Coarse to fine in one network, as arXiv 1806.02237: the prediction at half the resolution is
    # up-sampled and joins the input at full resolution, with a Dice loss at both, trained end to
    # end. The two networks are roth2018's; channels, depth and patch are our own choice.
    "pyramid": Config(
        model=ModelConfig(filters=(32, 64, 128), skip="sum", norm="sync_batch", pyramid=2),
        patches=PatchConfig(size=(64, 96, 96), batch_size=2),
        loss=LossConfig(name="dice"),
        augmentation=_ROTH2018,
        training=TrainingConfig(epochs=200, steps_per_epoch=250),
        inference=InferenceConfig(overlap=(32, 48, 48)),
    ),
    # Learns the phantoms of `fcnseg phantom` at 4 mm in minutes on two cores, for any seed
    # (benchmarks/bench_seeds.py; decision record 0019 gives the reasons).
    "demo": Config(
        model=ModelConfig(filters=(8, 16, 32, 64), skip="sum", deep_supervision=2),
        patches=PatchConfig(size=(32, 48, 48), batch_size=3),
        training=TrainingConfig(
            epochs=15,
            steps_per_epoch=50,
            learning_rate=5e-3,
            validate_every=5,
        ),
        inference=InferenceConfig(overlap=(12, 12, 12), batch_size=2),
    ),
}
