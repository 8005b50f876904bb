"""Masks of volumes on their own grid, by the network of a finished run."""

from __future__ import annotations

import os
import re
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.errors import InputError
from fcnseg.inference.segmenter import Segmenter
from fcnseg.model_info import ModelInfo
from fcnseg.volumes import Volume, from_canonical, to_canonical

_FAILED_CHECK = re.compile(r"assertion failed: \[(.*)\]")


def load_run(run_dir: str | os.PathLike[str]) -> tuple[keras.Model, ModelInfo]:
    raise NotImplementedError


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
