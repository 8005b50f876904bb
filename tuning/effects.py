"""Settings that have an effect only beside certain values of others.

Without the check, trials that differ in such a setting alone would be the same training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fcnseg.config import SETTINGS_OF_LOSS, Config, config_to_mapping
from fcnseg.errors import ConfigError


class _Condition(NamedTuple):
    """A condition on a configuration.

    Attributes:
        rule: Wording for an error, after "it only counts where".
        is_met: Tells whether a configuration meets it.
    """

    rule: str
    is_met: Callable[[Config], bool]

    def and_also(self, other: _Condition) -> _Condition:
        """Gives the condition that both are met."""
        return _Condition(
            f"{self.rule}, and {other.rule}",
            lambda config: self.is_met(config) and other.is_met(config),
        )


def _one_of(key: str, values: Iterable[str]) -> _Condition:
    section, _, name = key.partition(".")
    allowed = tuple(values)
    return _Condition(
        f"{key} is {' or '.join(allowed)}",
        lambda config: config_to_mapping(config)[section][name] in allowed,
    )


_DEFORMS = _Condition(
    "augmentation.deformation_voxels is above 0",
    lambda config: any(config.augmentation.deformation_voxels),
)
_CHANGES_HU = _Condition(
    "augmentation.intensity_probability is above 0",
    lambda config: config.augmentation.intensity_probability > 0,
)
_HU_KEYS = ("noise_hu", "blur_mm", "low_resolution", "brightness_hu", "contrast", "gamma")
_OF_LOSS = {
    name: _one_of("loss.name", [loss for loss, names in SETTINGS_OF_LOSS.items() if name in names])
    for name in {name for names in SETTINGS_OF_LOSS.values() for name in names}
}
_SEVERAL_PATCHES = _Condition(
    "patches.batch_size is above 1", lambda config: config.patches.batch_size > 1
)
_CONDITIONS = {
    "training.weight_decay": _one_of("training.optimizer", ["adamw"]),
    "training.momentum": _one_of("training.optimizer", ["sgd"]),
    "training.lookahead_steps": _one_of("training.optimizer_wrapper", ["lookahead"]),
    "training.swa_start": _one_of("training.optimizer_wrapper", ["swa"]),
    "training.poly_power": _one_of("training.schedule", ["poly"]),
    "training.milestones": _one_of("training.schedule", ["step"]),
    "training.gamma": _one_of("training.schedule", ["step"]),
    "augmentation.run_on": _Condition(
        "there is augmentation",
        lambda config: config.augmentation.warps or config.augmentation.changes_hu,
    ),
    "augmentation.deformation_of": _DEFORMS,
    "augmentation.control_spacing_voxels": _DEFORMS,
    "augmentation.gamma_window": _Condition(
        "augmentation.gamma is a range", lambda config: config.augmentation.gamma != (1, 1)
    ).and_also(_CHANGES_HU),
    **{f"augmentation.{name}": _CHANGES_HU for name in _HU_KEYS},
    "augmentation.intensity_probability": _Condition(
        "augmentation changes HU",
        lambda config: (
            config.augmentation.changes_hu or config.augmentation.intensity_probability == 0
        ),
    ),
    "loss.level_weights": _Condition(
        "the network has outputs at several levels",
        lambda config: config.model.deep_supervision + config.model.pyramid > 1,
    ),
    **{f"loss.{name}": condition for name, condition in _OF_LOSS.items()},
    "loss.batch_dice": _OF_LOSS["batch_dice"].and_also(_SEVERAL_PATCHES),
}


def check_effects(keys: Iterable[str], config: Config) -> None:
    """Checks that settings of a search have an effect on a configuration.

    Args:
        keys: Dotted keys of the settings that apply.
        config: Configuration with their values.

    Raises:
        ConfigError: If one has none.
    """
    for key in keys:
        condition = _CONDITIONS.get(key)
        if condition is not None and not condition.is_met(config):
            raise ConfigError(
                f"{key} must have a `when`, or another base: it only counts where {condition.rule}"
            )
