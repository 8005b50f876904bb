"""Differences between Keras 3 and Keras 2.15, the last version that tensorflow-addons runs on."""

from __future__ import annotations

import os
from typing import Any

import keras

IS_KERAS_3 = not keras.__version__.startswith("2.")


def write_archive(archive: keras.export.ExportArchive, directory: str | os.PathLike[str]) -> None:
    """Writes a SavedModel without console output; Keras 2 has none."""
    options = {"verbose": False} if IS_KERAS_3 else {}
    archive.write_out(os.fspath(directory), **options)


def tensorflow_variables(variables: list[Any]) -> list[Any]:
    """Gives the `tf.Variable`s of a layer, model or metric, which Keras 3 wraps."""
    return [variable.value for variable in variables] if IS_KERAS_3 else list(variables)
