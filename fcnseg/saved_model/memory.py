"""The memory of a server's process, and the largest volume for which a figure suffices.

The part of the networks is reckoned from their graphs or, if a figure is asked for, measured in a
process of its own. The rest grows with the voxels of a volume, by factors that were measured once.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcnseg.errors import ModelError
from fcnseg.inference import Segmenter, make_segmenter
from fcnseg.inference.averaging import Axis
from fcnseg.saved_model.options import DEFAULT_MEMORY_GIB
from fcnseg.saved_model.self_check import replay_in_fresh_process
from fcnseg.saved_model.session import DEFAULT_SIGNATURE
from fcnseg.saved_model.signatures import ServedModel
from fcnseg.volumes import Shape

# At 8 million voxels as sent and at the spacing of the model, with the network of
# tests/test_export_memory.py, `segment_volume` took 12 bytes a voxel with 3 classes, 29 with 14,
# and 97 with 14 at a depth of a window and a slice, where the sums of nearly all slices are held;
# `segment_nifti` took up to 37 with 3 classes, besides the request, 8 in float64.
_BYTES_OF_VOXEL = 40
_BYTES_OF_CLASS = 7
_FEWEST_VOXELS = 2**20  # 1 million: less is no scan
_USUAL_VOXELS = 512 * 512 * 200  # of an abdomen, which no figure of our own choice refuses

# A process with TensorFlow and no network took 0.66 GiB. Besides, nine networks, of two levels to
# fcn_s with windows of 64^3, took up to 2.1 times the tensors that are needed at once: kernels copy
# inputs and outputs. Weights exist in the graph, in the file and in the layout of kernels.
_BYTES_OF_PROCESS = 0.75 * 2**30
_COPIES_OF_TENSORS = 2.25
_COPIES_OF_WEIGHTS = 3


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """The largest volume of a served model, and the memory that it needs.

    Attributes:
        max_voxels: Voxels above which a volume is refused.
        bytes_of_voxel: Memory for each of its voxels, at most.
        network_bytes: Memory of a process that runs the networks, at most.
        is_measured: True if that was measured, false if it was reckoned.
    """

    max_voxels: int
    bytes_of_voxel: int
    network_bytes: int
    is_measured: bool

    @classmethod
    def of(cls, segmenter: Segmenter, max_memory_gib: float | None) -> MemoryLimit:
        """Finds the largest volume for a figure of memory.

        Args:
            segmenter: The networks and their info, whose `max_voxels` is not exceeded.
            max_memory_gib: Memory of a server's process that runs one request at a time, in GiB.
                By default `DEFAULT_MEMORY_GIB`, or what a usual scan needs if that is more.

        Raises:
            ModelError: If the memory suffices for no scan.
        """
        is_measured = max_memory_gib is not None
        networks = measure_networks(segmenter) if is_measured else reckon_networks(segmenter)
        bytes_of_voxel = _BYTES_OF_VOXEL + _BYTES_OF_CLASS * segmenter.info.num_classes
        given = DEFAULT_MEMORY_GIB if max_memory_gib is None else max_memory_gib
        voxels = int((given * 2**30 - networks) / bytes_of_voxel)
        if max_memory_gib is None:
            voxels = max(voxels, _USUAL_VOXELS)
        if voxels < _FEWEST_VOXELS:
            least = math.ceil((networks + _FEWEST_VOXELS * bytes_of_voxel) / 2**30 * 100) / 100
            raise ModelError(
                f"max_memory_gib must be at least {least} for these networks, which take"
                f" {networks / 2**30:.2f} GiB, got {max_memory_gib}"
            )
        voxels = min(segmenter.info.max_voxels, voxels)
        return cls(voxels, bytes_of_voxel, networks, is_measured)

    def __str__(self) -> str:
        gib = (self.network_bytes + self.max_voxels * self.bytes_of_voxel) / 2**30
        how = "measured" if self.is_measured else "reckoned"
        return f"at most {gib:.1f} GiB, {how}"


def limit_memory(
    segmenter: Segmenter, limit: MemoryLimit, *, flips: Sequence[Axis] = ()
) -> Segmenter:
    """Lowers the largest number of voxels, so that a request needs no more than some memory.

    Args:
        segmenter: The networks and their info.
        limit: Largest volume of these networks.
        flips: Flips of the segmenter.

    Returns:
        A segmenter of the same networks, whose info has the limit's `max_voxels`.
    """
    info = dataclasses.replace(segmenter.info, max_voxels=limit.max_voxels)
    return make_segmenter(segmenter.models, info, flips=flips)


def reckon_networks(segmenter: Segmenter) -> int:
    """Reckons the peak memory, in bytes, of a process that serves the most patches at once.

    Networks of an ensemble, and flips, run one after the other.
    """
    window = segmenter.info.window
    count = segmenter.patch_sizes.max_voxels // math.prod(window)
    models = [model for model in segmenter.models if isinstance(model, keras.Model)]
    tensors = max(_live_bytes(model, count, window) for model in models)
    weights = sum(
        math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        for model in models
        for variable in model.weights
    )
    return int(_BYTES_OF_PROCESS + _COPIES_OF_TENSORS * tensors + _COPIES_OF_WEIGHTS * weights)


def _live_bytes(model: keras.Model, count: int, window: Shape) -> int:
    """The most bytes of tensors that are needed at once, if ops run in the order of the graph."""
    patches = tf.TensorSpec([count, *window, 1], tf.float32)
    run = tf.function(lambda patches: model(patches, training=False))
    ops = run.get_concrete_function(patches).graph.get_operations()
    last_use = {tensor.ref(): index for index, op in enumerate(ops) for tensor in op.inputs}
    ended: collections.Counter[int] = collections.Counter()
    live = most = 0
    for index, op in enumerate(ops):
        for tensor in op.outputs:
            if tensor.shape.is_fully_defined():
                size = tensor.shape.num_elements() * tensor.dtype.size
                ended[last_use.get(tensor.ref(), len(ops))] += size
                live += size
        most = max(most, live)
        live -= ended[index]
    return int(most)


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
