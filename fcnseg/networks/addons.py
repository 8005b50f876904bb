"""The class of Keras or of tensorflow-addons that each name in a configuration means.

tensorflow-addons was archived in May 2024; it runs beside TensorFlow 2.15 and Keras 2 alone, which
the extra `addons` installs. A name that Keras has is Keras's, on both lines where both have it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from fcnseg.errors import ConfigError
from fcnseg.extras import require_extra
from fcnseg.networks.keras_compat import IS_KERAS_3

_TFA = "tensorflow_addons"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The dotted names of a class or function on both lines.

    Attributes:
        keras_3: On the present line, of Keras 3; None if only tensorflow-addons has it.
        keras_2: On the line of the extra `addons`.
        wrapped: On that line, inside a wrapper, which takes optimizers of the earlier kind only;
            None if there is none.
    """

    keras_3: str | None
    keras_2: str
    wrapped: str | None = None


def _keras_optimizer(name: str, *, wrapped: str | None = None) -> Origin:
    return Origin(f"keras.optimizers.{name}", f"keras.optimizers.{name}", wrapped)


def _addons_optimizer(name: str, *, keras_3: str | None = None) -> Origin:
    return Origin(keras_3, f"{_TFA}.optimizers.{name}", f"{_TFA}.optimizers.{name}")


ORIGINS = {
    "training.optimizer": {
        "adam": _keras_optimizer("Adam", wrapped="keras.optimizers.legacy.Adam"),
        # That of tensorflow-addons does not multiply the decay by the learning rate.
        "adamw": _keras_optimizer("AdamW"),
        "sgd": _keras_optimizer("SGD", wrapped="keras.optimizers.legacy.SGD"),
        "lamb": _addons_optimizer("LAMB", keras_3="keras.optimizers.Lamb"),
        "radam": _addons_optimizer("RectifiedAdam"),
        "novograd": _addons_optimizer("NovoGrad"),
        "yogi": _addons_optimizer("Yogi"),
        "adabelief": _addons_optimizer("AdaBelief"),
    },
    "training.optimizer_wrapper": {
        "lookahead": Origin(None, f"{_TFA}.optimizers.Lookahead"),
        "swa": Origin(None, f"{_TFA}.optimizers.SWA"),
        # On the present line fcnseg's own average of the weights does the same.
        "moving_average": Origin(
            "fcnseg.training.ema.WeightAverage", f"{_TFA}.optimizers.MovingAverage"
        ),
    },
    # fcnseg/sampling/augmentation/deformation.py calls it.
    "augmentation.deformation_of": {
        "polyharmonic": Origin(None, f"{_TFA}.image.interpolate_spline"),
    },
}
"""The class or function of each name, by setting."""


def find_class(setting: str, name: str, *, wrapped: bool = False) -> Any:
    """Imports the class or function that a setting names, on the line that is installed.

    Args:
        setting: One of `ORIGINS`.
        name: A value of the setting.
        wrapped: True for an optimizer inside a wrapper of tensorflow-addons.

    Raises:
        ConfigError: If only tensorflow-addons has it and this is Keras 3, or it cannot be wrapped.
        MissingExtraError: If tensorflow-addons is not installed.
    """
    module, _, attribute = _dotted_name(setting, name, wrapped=wrapped).rpartition(".")
    return getattr(require_extra(module), attribute)


def is_of_addons(setting: str, name: str) -> bool:
    """Tells whether tensorflow-addons has the class of a name, on the line that is installed."""
    return not IS_KERAS_3 and ORIGINS[setting][name].keras_2.startswith(_TFA)


def _dotted_name(setting: str, name: str, *, wrapped: bool) -> str:
    origin = ORIGINS[setting][name]
    if IS_KERAS_3 and origin.keras_3 is None:
        raise ConfigError(
            f"{setting} {name} is in tensorflow-addons alone, which comes with fcnseg's extra"
            f" addons for Python 3.10 or 3.11 and TensorFlow 2.15, got TensorFlow {tf.__version__}"
            f" and Keras {keras.__version__}"
        )
    found = origin.wrapped if wrapped else origin.keras_3 if IS_KERAS_3 else origin.keras_2
    if found is None:
        known = [each for each, other in ORIGINS[setting].items() if other.wrapped]
        raise ConfigError(
            f"{setting} must be one of {', '.join(known)} inside a wrapper of tensorflow-addons,"
            f" got {name}"
        )
    return found
