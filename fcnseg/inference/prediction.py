"""Masks of volumes on their own grid, by the network of a finished run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import fcnseg.models  # noqa: F401  registers the layers that a saved network is made of
from fcnseg.errors import InputError, one_line
from fcnseg.inference.segmenter import Segmenter
from fcnseg.model_info import ModelInfo
from fcnseg.run_folder import BEST_MODEL_FILE, read_run
from fcnseg.volumes import Volume, from_canonical, to_canonical

_FAILED_CHECK = re.compile(r"assertion failed: \[(.*)\]")


def load_run(run_dir: str | os.PathLike[str]) -> tuple[keras.Model, ModelInfo]:
    """Loads the best network of a finished run.

    Args:
        run_dir: Folder of the run.

    Returns:
        The network and its info, as `make_segmenter` takes them.

    Raises:
        InputError: If the run is missing or unfinished, or a file of it is not whole.
    """
    read_run(run_dir)
    path = Path(run_dir) / BEST_MODEL_FILE
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"not a whole network: {path}: {one_line(error)}") from error
    return model, ModelInfo.read(run_dir)


def predict_volume(segmenter: Segmenter, volume: Volume) -> npt.NDArray[np.uint8]:
    """Segments a volume of any orientation and spacing.

    Args:
        segmenter: Made by `make_segmenter`.
        volume: HU (z, y, x), int16.

    Returns:
        Class ids (z, y, x) on the volume's own grid.

    Raises:
        InputError: If the volume is refused, as for too many voxels.
    """
    canonical = to_canonical(volume)
    spacing = np.array(canonical.spacing, np.float32)
    try:
        labels = segmenter.segment_volume(canonical.array, spacing)["labels"]
    except tf.errors.InvalidArgumentError as error:
        check = _FAILED_CHECK.search(error.message)
        raise InputError(check[1] if check else error.message) from error
    return from_canonical(labels.numpy(), volume).astype(np.uint8, copy=False)
