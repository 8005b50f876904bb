"""Segmentation of volumes on their own grid in three stages, which may be of different volumes.

`prepare` is all before the network, `compute` the network, and `finish` all after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.errors import InputError
from fcnseg.inference.segmenter import Segmenter
from fcnseg.volumes import Volume, from_canonical, to_canonical

NETWORK_PHASE = "windows"
_FAILED_CHECK = re.compile(r"assertion failed: \[(.*)\]")


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

    def region(self, hu: tf.Tensor, spacing: npt.NDArray[np.float32]) -> tf.Tensor:
        """Finds the region of interest, bool (z, y, x), in HU (z, y, x) of a spacing (3,) in mm."""
        return self.segmenter.foreground_region(hu, spacing, self.dilation_voxels)


class Phases:
    """Time of each phase of the prediction of a volume.

    Attributes:
        seconds: By its name, in the order of the phases.
    """

    def __init__(self) -> None:
        """Begins with none."""
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time inside to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started)

    def add(self, phase: str, seconds: float) -> None:
        """Adds a time to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A volume in canonical orientation, and on the network's grid.

    Attributes:
        spacing: float32 (3,), mm (z, y, x).
        hu: On the network's grid, int16 (z, y, x).
        body: The part to compute, bool (z, y, x) on the volume's own grid.
        body_on_grid: The same on the network's grid.
        own_hu: HU on the volume's own grid, if a coarse network needs them.
    """

    spacing: npt.NDArray[np.float32]
    hu: tf.Tensor
    body: tf.Tensor
    body_on_grid: tf.Tensor
    own_hu: tf.Tensor | None


@dataclasses.dataclass(frozen=True)
class Computed:
    """Classes that the networks give for a volume, in canonical orientation.

    Attributes:
        spacing: float32 (3,), mm (z, y, x) of the volume.
        ids: Class ids on the network's grid, uint8 (z, y, x).
        region: The part that was computed, bool (z, y, x) on the volume's own grid.
        scores: Probabilities on the network's grid, int16 (z, y, x, classes) in units of 1 /
            `PROBABILITY_SCALE`; None if they were not asked for.
        windows: See `Segmented`.
    """

    spacing: npt.NDArray[np.float32]
    ids: tf.Tensor
    region: tf.Tensor
    scores: tf.Tensor | None
    windows: Mapping[str, int]


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
    phases = Phases()
    prepared = prepare(segmenter, volume, phases=phases, coarse=coarse)
    computed = compute(
        segmenter, prepared, phases=phases, coarse=coarse, with_probabilities=with_probabilities
    )
    return finish(segmenter, computed, phases=phases, like=volume)


def prepare(
    segmenter: Segmenter, volume: Volume, *, phases: Phases, coarse: Coarse | None = None
) -> Prepared:
    """Reorients and resamples a volume, and finds the body in it; see `segment`."""
    with phases.timed("turning"):
        canonical = to_canonical(volume)
        spacing = np.array(canonical.spacing, np.float32)
        own_hu = tf.constant(canonical.array)
    with _refusals():
        with phases.timed("finding the body"):
            body = segmenter.find_body(own_hu, spacing)
        with phases.timed("resampling"):
            hu = segmenter.to_grid(own_hu, spacing)
            on_grid = segmenter.region_to_grid(body, spacing)
    return Prepared(spacing, hu, body, on_grid, None if coarse is None else own_hu)


def compute(
    segmenter: Segmenter,
    prepared: Prepared,
    *,
    phases: Phases,
    coarse: Coarse | None = None,
    with_probabilities: bool = False,
) -> Computed:
    """Computes class ids on the network's grid; see `segment`."""
    hu, region, on_grid = prepared.hu, prepared.body, prepared.body_on_grid
    windows = {"grid": segmenter.tiling.count(hu.shape, xp=np)}
    if segmenter.info.skip_air:
        windows["body"] = segmenter.count_windows(on_grid)
    if coarse is not None:
        with phases.timed("coarse network"), _refusals():
            found = coarse.region(prepared.own_hu, prepared.spacing)
            region = tf.logical_and(found, region)
            on_grid = segmenter.region_to_grid(region, prepared.spacing)
            windows["coarse_region"] = segmenter.count_windows(on_grid)
    started = time.perf_counter()
    segment_grid = segmenter.score_grid if with_probabilities else segmenter.segment_grid
    given = segment_grid(hu, on_grid)
    of_network = float(given["seconds"])
    phases.add(NETWORK_PHASE, of_network)
    phases.add("argmax", time.perf_counter() - started - of_network)
    counts = {name: int(count) for name, count in windows.items()}
    return Computed(prepared.spacing, given["ids"], region, given.get("scores"), counts)


def finish(segmenter: Segmenter, computed: Computed, *, phases: Phases, like: Volume) -> Segmented:
    """Resamples class ids to the grid of a volume, in its orientation; see `segment`."""
    spacing, region, scores = computed.spacing, computed.region, computed.scores
    with phases.timed("way back"):
        labels = segmenter.to_volume(computed.ids, region, spacing)
        mask = from_canonical(labels.numpy(), like).astype(np.uint8, copy=False)
    if scores is None:
        return Segmented(mask, computed.windows)
    probabilities = (
        segmenter.probability_of(scores, region, spacing, index)
        for index in range(segmenter.info.num_classes)
    )
    turned = (from_canonical(each.numpy(), like) for each in probabilities)
    return Segmented(mask, computed.windows, turned)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Converts errors of the graph's own checks to `InputError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        check = _FAILED_CHECK.search(error.message)
        raise InputError(check[1] if check else error.message) from error
