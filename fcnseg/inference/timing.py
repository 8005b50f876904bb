"""Time of prediction on this machine: of a window in a network, and of all else for a scan."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from fcnseg.codes import ACCEPTABLE
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.inference.backend import Backend
from fcnseg.inference.segmentation import NETWORK_PHASE, Phases, compute, finish, prepare
from fcnseg.inference.segmenter import Segmenter, make_segmenter
from fcnseg.masks.case_outputs import CaseImage, CaseOutputs
from fcnseg.runs.model_info import ModelInfo
from fcnseg.volumes import AIR_HU, Shape, Triple, Volume, write_volume

_ENOUGH_SECONDS = 3.0  # of measured calls
_MOST_CALLS = 5
# A tenth of the voxels are organs, as of seven abdominal ones.
_ORGANS_WITHIN, _BLOB = 0.8, 0.2
_TISSUE_HU, _ORGAN_HU, _NOISE_HU = 40, 160, 12


def window_seconds(model: keras.Model, info: ModelInfo, *, backend: Backend) -> float:
    """Measures the time of a window in a network, in batches as in prediction.

    Args:
        model: The network, as `make_segmenter` takes it.
        info: Its window and batch size.
        backend: Runtime that computes it.

    Returns:
        Seconds, the median of several calls after the first one.
    """
    segmenter = make_segmenter(model, info, backend=backend)
    batch = np.random.default_rng(0).normal(0, 100, (info.batch_size, *info.window, 1))
    patches = batch.astype(np.float32)

    def predict() -> None:
        segmenter.predict_patches(patches)["probabilities"].numpy()

    return _median_seconds(predict) / info.batch_size


def other_seconds(info: ModelInfo, *, shape: Shape, spacing_mm: Triple) -> float:
    """Measures the time of a scan from file to file without that of its network.

    A synthetic body is read, checked, resampled, segmented by thresholds of HU, and its mask is
    written.

    Args:
        info: Grid, window and classes of the network.
        shape: Voxels (z, y, x) of the scan.
        spacing_mm: Its spacing (z, y, x).

    Returns:
        Seconds, without the first time, in which graphs are made.

    Raises:
        InputError: If the scan has more voxels than the model takes.
    """
    segmenter = make_segmenter(_thresholds(info.num_classes), info)
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder, "scan_image.nii.gz"))
        write_volume(Volume(_make_body(shape), np.diag([*spacing_mm[::-1], 1.0])), image)
        case = CaseOutputs("scan", image, folder)
        _from_file_to_file(segmenter, case)
        phases = _from_file_to_file(segmenter, case)
    return sum(seconds for phase, seconds in phases.items() if phase != NETWORK_PHASE)


def _from_file_to_file(segmenter: Segmenter, case: CaseOutputs) -> dict[str, float]:
    """Predicts a case as `fcnseg predict` does, and gives the seconds of each phase."""
    gate, phases = Gate(CheckOptions(accept=ACCEPTABLE)), Phases()
    with phases.timed("reading"):
        volume, _ = gate.read(case.image, case_id=case.case_id)
        image = CaseImage(volume, None, case.facts_of(Path(case.image)))
    prepared = prepare(segmenter, volume, phases=phases)
    computed = compute(segmenter, prepared, phases=phases)
    segmented = finish(segmenter, computed, phases=phases, like=volume)
    with phases.timed("writing"):
        names = segmenter.info.class_names
        case.write(segmented.mask, image, class_names=names, made_with={})
    return phases.seconds


def _median_seconds(call: Callable[[], object]) -> float:
    """Median time of some calls, after one that is not measured."""
    call()
    times: list[float] = []
    while len(times) < _MOST_CALLS and sum(times) < _ENOUGH_SECONDS:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _thresholds(num_classes: int) -> keras.Model:
    """A network that takes what is brighter than tissue for the first organ."""
    hu = keras.Input((None, None, None, 1))
    logits = keras.layers.Conv3D(num_classes, 1)
    model = keras.Model(hu, logits(hu))
    kernel, bias = (
        np.zeros((1, 1, 1, 1, num_classes), np.float32),
        np.zeros(num_classes, np.float32),
    )
    kernel[..., 1], bias[1], bias[2:] = 1, -(_TISSUE_HU + _ORGAN_HU) / 2, -_ORGAN_HU
    model.set_weights([kernel, bias])
    return model


def _make_body(shape: Shape) -> npt.NDArray[np.int16]:
    """HU (z, y, x) of an elliptic body in air, with noise and a grid of bright organs.

    One to two in a hundred voxels of its mask lie at borders, as in masks of abdominal organs or
    somewhat more: the time to resample a mask grows with them.
    """
    z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    in_plane = (y / 0.7) ** 2 + (x / 0.9) ** 2
    blobs = np.sin(2 * np.pi * y) * np.sin(2 * np.pi * x) * (in_plane < _ORGANS_WITHIN)
    noise = np.random.default_rng(0).normal(0, _NOISE_HU, shape[1:]).astype(np.int16)
    hu = np.empty(shape, np.int16)
    for number, height in enumerate(z.ravel()):
        slices = np.where(in_plane < 1, _TISSUE_HU, AIR_HU)
        slices[blobs * np.cos(2 * np.pi * height) > _BLOB] = _ORGAN_HU
        hu[number] = np.maximum(slices + np.roll(noise, 7 * number), AIR_HU)
    return hu
