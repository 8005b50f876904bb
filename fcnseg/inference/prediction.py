"""Segmentation of volumes on their own grid, with the networks of finished runs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from fcnseg.inference.segmenter import Segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.networks.keras_compat import WEIGHTS_FILE, is_of_this_line
from fcnseg.networks.precision import Precision, for_inference, policies_of, with_precision
from fcnseg.runs.archives import check_archive
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run import Run
from fcnseg.volumes import Volume, from_canonical, to_canonical

logger = logging.getLogger(__name__)

_HALF = "mixed_float16"
# Properties that runs must share for their probabilities to be averaged.
_SHARED_FIELDS = ("class_names", "spacing_mm", "window", "overlap", "skip_air")
_FAILED_CHECK = re.compile(r"assertion failed: \[(.*)\]")


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
            written, or two differ in classes, spacing or windows.
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
    return for_inference(load_run(run)[0], precision)


@dataclasses.dataclass(frozen=True)
class Coarse:
    """The coarse stage: a network that finds the region of interest for a finer one.

    Attributes:
        segmenter: Segmenter of the coarse network; its foreground, of any organ, is used.
        dilation_voxels: Dilation of the foreground along each axis, in voxels of its own grid; Roth
            et al. 2017 (arXiv 1704.06382) take 3.
    """

    segmenter: Segmenter
    dilation_voxels: int = 3

    def region(self, hu: npt.NDArray[np.int16], spacing: npt.NDArray[np.float32]) -> tf.Tensor:
        """Finds the region of interest, bool (z, y, x), in HU (z, y, x) of a spacing (3,) in mm."""
        return self.segmenter.foreground_region(hu, spacing, self.dilation_voxels)


@dataclasses.dataclass(frozen=True)
class Segmented:
    """Result of the networks for a volume, on its own grid.

    Attributes:
        mask: Class ids, uint8 (z, y, x).
        windows: Numbers of windows, each counted once, whatever the flips and the networks: `grid`,
            all that cover the volume; `body`, those with a voxel of the body, if air is skipped;
            and `coarse_region`, those that also have one of the region of the coarse network, if
            there is one. The last of these was computed.
        probabilities: For each class, background first, its probability, int16 (z, y, x) in units
            of 1 / `PROBABILITY_SCALE`; each is computed when it is asked for. By default there are
            none.
    """

    mask: npt.NDArray[np.uint8]
    windows: Mapping[str, int]
    probabilities: Iterable[npt.NDArray[np.int16]] = ()


def segment(
    segmenter: Segmenter,
    volume: Volume,
    *,
    coarse: Coarse | None = None,
    with_probabilities: bool = False,
) -> Segmented:
    """Segments a volume of any orientation and spacing, and counts windows.

    Args:
        segmenter: Made by `make_segmenter`.
        volume: HU (z, y, x), int16.
        coarse: Network that finds the region of interest; everywhere by default.
        with_probabilities: True to give probabilities. All are held on the network's grid; on the
            volume's own grid, one class at a time.

    Raises:
        InputError: If the volume is refused, as for too many voxels.
    """
    canonical = to_canonical(volume)
    spacing = np.array(canonical.spacing, np.float32)
    asked = (canonical.array, spacing)
    with _refusals():
        if with_probabilities:
            region = coarse.region(*asked) if coarse else tf.ones(canonical.shape, tf.bool)
            found = segmenter.score_within(*asked, region)
        elif coarse is None:
            found = segmenter.segment_and_count(*asked)
        else:
            found = segmenter.segment_within(*asked, coarse.region(*asked))
    mask = from_canonical(found["labels"].numpy(), volume).astype(np.uint8, copy=False)
    windows = _numbers(found["windows"], has_coarse=coarse is not None)
    if not with_probabilities:
        return Segmented(mask, windows)
    probabilities = (
        segmenter.probability_of(found["scores"], found["region"], spacing, index)
        for index in range(segmenter.info.num_classes)
    )
    return Segmented(
        mask, windows, (from_canonical(each.numpy(), volume) for each in probabilities)
    )


def _numbers(windows: Mapping[str, tf.Tensor], *, has_coarse: bool) -> dict[str, int]:
    """Gives the counts of the graph as `Segmented` has them."""
    names = {"grid": "grid", "body": "body", "region": "coarse_region"}
    if not has_coarse:
        del names["region"]
    return {names[name]: int(windows[name]) for name in names if name in windows}


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


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Converts errors of the graph's own checks to `InputError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        check = _FAILED_CHECK.search(error.message)
        raise InputError(check[1] if check else error.message) from error
