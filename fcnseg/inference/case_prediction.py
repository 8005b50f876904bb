"""Prediction of a case: from its image to its files."""

from __future__ import annotations

import collections
import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.conversion.gate import Gate
from fcnseg.inference.postprocessing import NOTHING, Postprocessing, postprocess
from fcnseg.inference.segmentation import (
    Coarse,
    Computed,
    Phases,
    Prepared,
    compute,
    finish,
    prepare,
)
from fcnseg.inference.segmenter import Segmenter
from fcnseg.inference.sliding_window import PROBABILITY_SCALE
from fcnseg.masks.case_outputs import CaseImage, CaseOutputs
from fcnseg.storage import files
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes import Volume, write_parts

logger = logging.getLogger(__name__)

_IN_FLIGHT = 3  # cases: one that is read, one that is segmented, one that is written


@dataclasses.dataclass(frozen=True)
class CasePredictor:
    """Writes the files of cases.

    Attributes:
        segmenter: Made by `make_segmenter`.
        coarse: Network that finds the region of interest; everywhere by default.
        postprocessing: Post-processing of masks.
        made_with: Provenance: all that masks depend on apart from their images.
        gate: Reads the images.
        seconds: Time of each phase over all cases written so far, by its name.
        windows: Numbers of windows over all cases so far, as `Segmented` has them.
    """

    segmenter: Segmenter
    coarse: Coarse | None = None
    postprocessing: Postprocessing = NOTHING
    made_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gate: Gate = dataclasses.field(default_factory=Gate)
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(float)
    )
    windows: dict[str, int] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(int)
    )

    def predict_each(self, cases: Iterable[CaseOutputs]) -> Iterator[Exception | None]:
        """Segments images, and writes their organs' volumes and the masks on their grids.

        While the network works on an image, the next is read and resampled, and the mask of the one
        before is resampled and written.
        An error of one case does not stop the others.

        Yields:
            For each case, in this order, its error, such as an `InputError` if its image cannot be
            read, cannot be a CT, or is refused; or None, when its files are written.
        """
        stages = [ThreadPoolExecutor(1) for _ in range(3)]
        in_flight: collections.deque[Future[None]] = collections.deque()
        try:
            for case in cases:
                in_flight.append(self._begin(case, *stages))
                if len(in_flight) == _IN_FLIGHT:
                    yield _error_of(in_flight.popleft())
            while in_flight:
                yield _error_of(in_flight.popleft())
        finally:
            for stage in stages:
                stage.shutdown(cancel_futures=True)

    def _begin(
        self,
        case: CaseOutputs,
        reader: ThreadPoolExecutor,
        segmenter: ThreadPoolExecutor,
        writer: ThreadPoolExecutor,
    ) -> Future[None]:
        """Submits the stages of a case, each of which waits for the one before."""
        phases = Phases()
        read = reader.submit(lambda: self._read(case, phases))
        computed = segmenter.submit(lambda: self._compute(case, read.result()[1], phases))
        return writer.submit(lambda: self._write(case, read.result()[0], computed.result(), phases))

    def _read(self, case: CaseOutputs, phases: Phases) -> tuple[CaseImage, Prepared]:
        with phases.timed("reading"):
            image = case.read(self.gate)
        return image, prepare(self.segmenter, image.volume, phases=phases, coarse=self.coarse)

    def _compute(self, case: CaseOutputs, prepared: Prepared, phases: Phases) -> Computed:
        return compute(
            self.segmenter,
            prepared,
            phases=phases,
            coarse=self.coarse,
            with_probabilities=case.with_probabilities,
        )

    def _write(
        self, case: CaseOutputs, image: CaseImage, computed: Computed, phases: Phases
    ) -> None:
        segmented = finish(self.segmenter, computed, phases=phases, like=image.volume)
        names = self.segmenter.info.class_names
        with phases.timed("writing"):
            case.clear()
            if case.with_probabilities:
                by_class = zip(names, segmented.probabilities, strict=True)
                _write_probabilities(by_class, case.probabilities, like=image.volume)
            voxel_mm3 = image.volume.geometry.voxel_mm3
            mask = postprocess(segmented.mask, self.postprocessing, voxel_mm3=voxel_mm3)
            case.write(
                mask,
                image,
                class_names=names,
                made_with=self.made_with,
                windows=segmented.windows,
                seconds=phases.seconds,
            )
        logger.info("%s: %s", case.case_id, describe_windows(segmented.windows))
        for name, count in segmented.windows.items():
            self.windows[name] += count
        for phase, seconds in phases.seconds.items():
            self.seconds[phase] += seconds


def describe_windows(windows: Mapping[str, int]) -> str:
    """Describes numbers of windows, as `Segmented` has them.

    >>> describe_windows({"grid": 24, "body": 18, "coarse_region": 6})
    'windows: 24 on the grid, 18 with a part of the body, 6 in the coarse region'
    """
    places = {
        "grid": "on the grid",
        "body": "with a part of the body",
        "coarse_region": "in the coarse region",
    }
    return "windows: " + ", ".join(f"{windows[name]} {places[name]}" for name in windows)


def _error_of(done: Future[None]) -> Exception | None:
    """Waits for the end of a case; what is no error of a case is raised."""
    try:
        done.result()
    except Exception as error:  # whatever one case raises, the others continue
        return error
    return None


def probability_file(index: int, class_name: str) -> str:
    """Name of the file of a class's probability; characters unsafe in file names are replaced.

    >>> probability_file(3, "portal/splenic vein")
    '003_portal_splenic_vein.nii.gz'
    """
    return f"{index:03}_{re.sub(r'[^A-Za-z0-9._-]+', '_', class_name)}.nii.gz"


def _write_probabilities(
    by_class: Iterable[tuple[str, npt.NDArray[np.int16]]], folder: str, *, like: Volume
) -> None:
    """Writes a file per class into a folder that is renamed into place when all are written.

    In an object store they appear one by one; the mask of the case is written after them.
    """
    if files.is_local(folder):
        Path(folder).parent.mkdir(exist_ok=True)
    with atomic_write(folder) as whole:
        whole.mkdir()
        for index, (name, parts) in enumerate(by_class):
            write_parts(
                parts, whole / probability_file(index, name), whole=PROBABILITY_SCALE, like=like
            )
