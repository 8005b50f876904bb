"""The configuration of a run: its sections, presets by name, and YAML files."""

from fcnseg.config.files import (
    config_error,
    config_from_mapping,
    config_to_mapping,
    override,
    read_config,
    write_config,
)
from fcnseg.config.presets import PRESETS
from fcnseg.config.sections import (
    SETTINGS_OF_LOSS,
    AugmentationConfig,
    Config,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    PatchConfig,
    Size,
    TrainingConfig,
)

__all__ = [
    "PRESETS",
    "SETTINGS_OF_LOSS",
    "AugmentationConfig",
    "Config",
    "InferenceConfig",
    "LossConfig",
    "ModelConfig",
    "PatchConfig",
    "Size",
    "TrainingConfig",
    "config_error",
    "config_from_mapping",
    "config_to_mapping",
    "override",
    "read_config",
    "write_config",
]
