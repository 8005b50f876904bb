"""Segmentation of volumes on their own grid, with the networks of finished runs."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import fcnseg.losses
import fcnseg.networks.layers  # noqa: F401  registers the layers of saved networks
from fcnseg.errors import InputError, one_line
from fcnseg.inference.backend import Backend
from fcnseg.inference.openvino_network import OpenvinoNetwork
from fcnseg.inference.segmentation import Coarse, segment
from fcnseg.inference.segmenter import Segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.networks.keras_compat import WEIGHTS_FILE, is_of_this_line
from fcnseg.networks.onednn_faults import has_narrow_stride, is_affected
from fcnseg.networks.precision import Precision, for_inference, policies_of, with_precision
from fcnseg.runs.archives import check_archive
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run import Run
from fcnseg.volumes import Volume

logger = logging.getLogger(__name__)

_HALF = "mixed_float16"
# Properties that runs must share for their probabilities to be averaged.
_SHARED_FIELDS = ("class_names", "spacing_mm", "window", "overlap", "skip_air")


def load_run(run: Run | str | os.PathLike[str]) -> tuple[keras.Model, ModelInfo]:
    """Loads the best network of a finished run.

    Args:
        run: The run, or its folder.

    Returns:
        The network and its info, as `make_segmenter` takes them.

    Raises:
        InputError: If the run is missing or unfinished, one of its files is incomplete, or it is a
            version that was published for OpenVINO.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    path = run.network_path
    if run.is_for_openvino:
        raise InputError(
            f"{run.folder} is a version for OpenVINO, which fcnseg predict --backend openvino alone"
            " takes: give the run that it was exported from"
        )
    check_archive(path, what="network", remedy="restore an intact copy, or train again")
    try:
        if is_of_this_line(path):
            model = keras.models.load_model(path, compile=False)
        else:
            model = _rebuilt(run, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a network of fcnseg: {path}: {one_line(error)}") from error
    return _for_these_devices(model), run.info


def _rebuilt(run: Run, path: Path) -> keras.Model:
    """Builds the network of a run that another line of Keras saved, which has the same weights."""
    config = run.manifest.config
    model = build_fcn(
        config.model,
        num_classes=len(run.info.class_names),
        precision=config.training.precision,
    )
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        model.load_weights(archive.extract(WEIGHTS_FILE, folder))
    return model


def _for_these_devices(model: keras.Model) -> keras.Model:
    """Adapts a network to the devices here: a CPU does not pool float16, so there it is float32."""
    if _HALF not in policies_of(model) or tf.config.list_physical_devices("GPU"):
        return model
    logger.info(f"a network of {_HALF} becomes one of float32, as there is no GPU")
    return with_precision(model, "float32")


def load_runs(
    runs: Sequence[Run | str | os.PathLike[str]],
    *,
    backend: Backend = "tensorflow",
    precision: Precision | None = None,
) -> tuple[tuple[keras.Model | OpenvinoNetwork, ...], ModelInfo]:
    """Loads the best networks of finished runs to average.

    Args:
        runs: At least one, or their folders; for OpenVINO also versions that were published for it.
        backend: Runtime that is to compute the networks.
        precision: Precision of their layers, by default that of training; never float16. Of
            versions for OpenVINO, that of the layers that are not in int8, by default that of the
            export.

    Returns:
        The networks and the info of the first, as `make_segmenter` takes them.

    Raises:
        InputError: If a run is missing or unfinished, a file of its network is not as it was
            written, two differ in classes, spacing or windows, or TensorFlow is known to compute
            one wrongly in bfloat16 on this CPU.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    for run in opened:
        for field in _SHARED_FIELDS:
            first, other = getattr(opened[0].info, field), getattr(run.info, field)
            if first != other:
                raise InputError(
                    f"runs that are averaged must have the same {field}, got {first} in"
                    f" {opened[0].folder} and {other} in {run.folder}"
                )
    return tuple(_load(run, backend, precision) for run in opened), opened[0].info


def _load(run: Run, backend: Backend, precision: Precision | None) -> keras.Model | OpenvinoNetwork:
    if backend == "openvino" and run.is_for_openvino:
        run.check_published()
        return OpenvinoNetwork.read(run.network_path, precision or run.precision)
    if backend == "tensorflow" and (precision or run.precision) == "bfloat16":
        _check_bfloat16(run)
    return for_inference(load_run(run)[0], precision)


def _check_bfloat16(run: Run) -> None:
    """Refuses networks that TensorFlow computes wrongly in bfloat16 on this CPU."""
    is_narrow = has_narrow_stride(run.manifest.config.model, run.info.window)
    if is_narrow and is_affected() and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "precision must be float32, or the backend openvino, where a convolution with a stride"
            f" gives one voxel along x on this CPU, got bfloat16 and windows of"
            f" {run.info.window[2]} voxels along x of {run.folder}"
        )


def predict_volume(
    segmenter: Segmenter, volume: Volume, *, coarse: Coarse | None = None
) -> npt.NDArray[np.uint8]:
    """Segments a volume of any orientation and spacing.

    Args:
        segmenter: Made by `make_segmenter`.
        volume: HU (z, y, x), int16.
        coarse: Network that finds the region of interest; everywhere by default.

    Returns:
        Class ids (z, y, x) on the volume's own grid.

    Raises:
        InputError: If the volume is refused, as for too many voxels.
    """
    return segment(segmenter, volume, coarse=coarse).mask


def predict_probabilities(
    segmenter: Segmenter, volume: Volume, *, coarse: Coarse | None = None
) -> tuple[npt.NDArray[np.uint8], Iterator[npt.NDArray[np.int16]]]:
    """Segments a volume like `predict_volume`, and gives the probability of each class.

    All are held on the network's grid; on the volume's own grid, one class at a time.

    Args:
        segmenter: Made by `make_segmenter`.
        volume: HU (z, y, x), int16.
        coarse: Network that finds the region of interest; everywhere by default.

    Returns:
        Class ids (z, y, x), and for each class, background first, its probability (z, y, x) in
        units of 1 / `PROBABILITY_SCALE`; all on the volume's own grid.

    Raises:
        InputError: If the volume is refused, as for too many voxels.
    """
    found = segment(segmenter, volume, coarse=coarse, with_probabilities=True)
    return found.mask, iter(found.probabilities)
