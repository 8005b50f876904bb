"""What differs between Keras 3 and Keras 2.15, the last that tensorflow-addons runs on."""

from __future__ import annotations

import os
from typing import Any

import keras

IS_KERAS_3 = not keras.__version__.startswith("2.")


def write_archive(archive: keras.export.ExportArchive, directory: str | os.PathLike[str]) -> None:
    """Writes a SavedModel without a word; Keras 2 never says one."""
    options = {"verbose": False} if IS_KERAS_3 else {}
    archive.write_out(os.fspath(directory), **options)


def tensorflow_variables(variables: list[Any]) -> list[Any]:
    """The `tf.Variable` of each variable of a layer, model or metric, which Keras 3 wraps."""
    return [variable.value for variable in variables] if IS_KERAS_3 else list(variables)
