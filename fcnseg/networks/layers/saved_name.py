"""The names by which files know the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import keras

Layer = TypeVar("Layer", bound=type)


def saved_as(name: str) -> Callable[[Layer], Layer]:
    """Registers a layer class under the name that earlier files have for it.

    Keras finds the weights of a layer in a file by the `__name__` of its class, so that is changed
    as well.
    """

    def register(layer: Layer) -> Layer:
        layer.__name__ = name
        return keras.saving.register_keras_serializable(package="fcnseg", name=name)(layer)

    return register
