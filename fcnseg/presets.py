"""Ready configurations, by name."""

from __future__ import annotations

from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, TrainingConfig

PRESETS: dict[str, Config] = {
    # Roth et al. 2018 (arXiv 1803.08691): 3D FCN with encoder, decoder, skip connections and
    # transposed convolutions. Summation skips are arXiv 1711.06439's, Dice loss with uniform
    # weights and learning rate 1e-3 arXiv 1801.05912's. Channels, depth, window and patch are our
    # own choice: the paper's are not known to us.
    "roth2018": Config(
        model=ModelConfig(filters=(32, 64, 128, 256), skip="sum", norm="sync_batch"),
        patches=PatchConfig(size=(64, 96, 96), batch_size=2),
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
    # Learns the phantoms of fcnseg.phantom at 4 mm in two to three minutes on two cores: validation
    # Dice 0.86 after 500 steps. A step size of 5e-3 reached 0.70, and 1e-3 0.56 after half of them.
    "demo": Config(
        model=ModelConfig(filters=(8, 16, 32, 64), skip="sum"),
        patches=PatchConfig(size=(32, 48, 48), batch_size=3),
        training=TrainingConfig(
            epochs=10, steps_per_epoch=50, learning_rate=1e-2, validate_every=5
        ),
        inference=InferenceConfig(overlap=(12, 12, 12), batch_size=2),
    ),
}
