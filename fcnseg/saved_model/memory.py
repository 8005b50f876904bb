"""The memory of a server's process, and the largest volume for which a figure suffices.

The part of the networks is measured at export, in a process of its own. The rest grows with the
voxels of a volume, by factors that were measured once.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcnseg.errors import ModelError
from fcnseg.inference import Segmenter, make_segmenter
from fcnseg.inference.averaging import Axis
from fcnseg.saved_model.self_check import replay_in_fresh_process
from fcnseg.saved_model.session import DEFAULT_SIGNATURE
from fcnseg.saved_model.signatures import ServedModel

# At 8 million voxels as sent and at the spacing of the model, with the network of
# tests/test_export_memory.py, `segment_volume` took 12 bytes a voxel with 3 classes, 29 with 14,
# and 97 with 14 at a depth of a window and a slice, where the sums of nearly all slices are held;
# `segment_nifti` took up to 37 with 3 classes, besides the request, 8 in float64.
_BYTES_OF_VOXEL = 40
_BYTES_OF_CLASS = 7
_FEWEST_VOXELS = 2**20  # 1 million: less is no scan


def limit_memory(
    segmenter: Segmenter, max_memory_gib: float, *, flips: Sequence[Axis] = ()
) -> Segmenter:
    """Lowers the largest number of voxels, so that a request needs no more than some memory.

    Args:
        segmenter: The networks and their info.
        max_memory_gib: Memory of a server's process that runs one request at a time, in GiB.
        flips: Flips of the segmenter.

    Returns:
        A segmenter of the same networks, whose info has the lower of its own `max_voxels` and that
        for which the memory suffices.

    Raises:
        ModelError: If the memory suffices for no scan.
    """
    network_bytes = measure_networks(segmenter)
    bytes_of_voxel = _BYTES_OF_VOXEL + _BYTES_OF_CLASS * segmenter.info.num_classes
    voxels = int((max_memory_gib * 2**30 - network_bytes) / bytes_of_voxel)
    if voxels < _FEWEST_VOXELS:
        least = (network_bytes + _FEWEST_VOXELS * bytes_of_voxel) / 2**30
        raise ModelError(
            f"max_memory_gib must be at least {math.ceil(least * 100) / 100} for these networks,"
            f" which take {network_bytes / 2**30:.2f} GiB, got {max_memory_gib}"
        )
    info = segmenter.info
    info = dataclasses.replace(info, max_voxels=min(info.max_voxels, voxels))
    return make_segmenter(segmenter.models, info, flips=flips)


def measure_networks(segmenter: Segmenter) -> int:
    """Measures the peak memory, in bytes, of a process that serves the most patches at once.

    Raises:
        ModelError: If the system does not tell it.
    """
    window = segmenter.info.window
    count = segmenter.patch_sizes.max_voxels // math.prod(window)
    request = {"patches": np.zeros((count, *window, 1), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        ServedModel(segmenter).write(Path(folder), names=(DEFAULT_SIGNATURE,))
        peak = replay_in_fresh_process(Path(folder), {DEFAULT_SIGNATURE: request}).peak_bytes
    if not peak:
        raise ModelError("max_memory_gib needs the /proc of Linux, which tells the memory in use")
    return peak
