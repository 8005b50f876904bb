"""Segments CT volumes with a trained network: `fcnseg predict --help`."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnseg.cli.command import Location
from fcnseg.cli.image_source import ImageSource
from fcnseg.cli.progress import progress_of
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.cli.unseen import warn_of_seen_cases
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import explain
from fcnseg.errors import InputError
from fcnseg.inference.backend import Backend
from fcnseg.inference.computed_precision import computed_precision
from fcnseg.inference.postprocessing import NOTHING, Postprocessing
from fcnseg.masks.mask_folder import MaskFolder
from fcnseg.networks.precision import Precision
from fcnseg.records.dataset_info import Split
from fcnseg.runs import Run
from fcnseg.storage.whole_file import check_output_folder
from fcnseg.volumes import Axis

if TYPE_CHECKING:
    from fcnseg.inference.case_prediction import CasePredictor

logger = logging.getLogger(__name__)

_MOST_DILATION = 512  # in voxels: as wide as any CT, and far slower than predicting everywhere


@dataclasses.dataclass(frozen=True)
class PredictCommand:
    """Segments CT volumes with the best networks of finished training runs."""

    run_dir: tuple[Path, ...]
    """Folder of a finished training run, always on this machine, or with --backend openvino of a
    version that was exported for it; the probabilities of several runs are averaged."""
    _: dataclasses.KW_ONLY
    images: Location | None = None
    """A volume of any format (docs/formats.md), a folder of DICOM slices, or a folder of either;
    it may be in an object store, such as s3://bucket/images."""
    data: Location | None = None
    """Folder of records, instead of --images: the cases of --split, or of a fold, from the files
    that they were converted from."""
    split: Split | None = None
    """Cases of --data to predict; with a fold, by default validation, which are those that a run of
    the fold has not trained on."""
    fold: int | None = None
    """Number of a fold of --data, from 0, as in training."""
    folds: int | None = None
    """Number of folds."""
    cases: Location | None = None
    """CSV file as in the conversion, instead of --images; its labels are not needed."""
    dataset: Location | None = None
    """dataset.json of the Medical Segmentation Decathlon or of nnU-Net, instead of --images: all
    images that it lists, for training too."""
    totalsegmentator: Location | None = None
    """Folder of TotalSegmentator's dataset, instead of --images: SUBJECT/ct.nii.gz."""
    output: Location
    """Folder for the masks: CASE.nii.gz, on exactly the grid of its image, and organ volumes; it
    may be in an object store."""
    overwrite: bool = False
    """Replace masks that exist already."""
    resume: bool = False
    """Skip cases that are complete, and predict the others; needs the same runs and flags as
    before."""
    probabilities: bool = False
    """Write the probability of each class too, to probabilities/CASE/."""
    dicom_seg: bool = False
    """Write each mask as a DICOM Segmentation too, CASE.seg.dcm; all images must be DICOM."""
    rtstruct: bool = False
    """Write each mask as an RT Structure Set too, CASE.rtstruct.dcm; all images must be DICOM."""
    flips: tuple[Axis, ...] = ()
    """Axes whose flips are averaged too; each doubles the time."""
    backend: Backend = "tensorflow"
    """Runtime that computes the windows; OpenVINO is faster on CPUs."""
    precision: Precision | None = None
    """Precision of the networks' layers, by default that of training or of the version; of a
    version in int8, that of its other layers. OpenVINO computes in float32 on a CPU that has no
    bfloat16."""
    coarse_run_dir: Path | None = None
    """Coarse run: the other runs predict only where its foreground, of any organ, lies; else
    everywhere."""
    dilation_voxels: int = 3
    """Dilation of that foreground, in voxels of the coarse run."""
    postprocessing: Postprocessing = NOTHING
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""

    def run(self) -> None:
        """Segments each volume; one that fails does not stop the others."""
        if not 0 <= self.dilation_voxels <= _MOST_DILATION:
            raise InputError(
                f"dilation_voxels must be 0 to {_MOST_DILATION}, got {self.dilation_voxels}"
            )
        if len(set(self.flips)) < len(self.flips):
            raise InputError(f"flips must name each axis once, got {' '.join(self.flips)}")
        gate = Gate(CheckOptions(accept=self.accept))
        source = ImageSource.of(self)
        dataset = source.open_dataset()
        listed = source.list_cases(dataset)
        masks = MaskFolder.of(
            listed,
            os.fspath(self.output),
            overwrite=self.overwrite,
            resume=self.resume,
            with_probabilities=self.probabilities,
            with_dicom_seg=self.dicom_seg,
            with_rtstruct=self.rtstruct,
        )
        masks.check_dicom()
        runs = [Run.open(folder) for folder in self.run_dir]
        coarse = None if self.coarse_run_dir is None else Run.open(self.coarse_run_dir)
        made_with = self._made_with(runs, coarse)
        others = masks.others(made_with)
        masks.check_free()
        todo = masks.todo(made_with)
        if dataset is not None:
            warn_of_seen_cases(runs, dataset, masks.cases)
        predictor = self._make_predictor(runs, coarse, made_with, gate)
        check_output_folder(self.output, argument="output")
        errors = progress_of(
            predictor.predict_each(todo.values()), description="volumes", total=len(todo)
        )
        reasons = {
            case_id: explain(error) if error else None
            for case_id, error in zip(todo, errors, strict=True)
        }
        logger.info(_summary(predictor))
        masks.write_tables(predictor.segmenter.info.class_names, others=others)
        masks.report_failures(reasons)

    def _made_with(self, runs: Sequence[Run], coarse: Run | None) -> dict[str, Any]:
        """Provenance of the masks, as CASE.json contains it; images have their own entry."""
        made_with: dict[str, Any] = {
            "networks_sha256": [run.network_digest() for run in runs],
            "flips": sorted(self.flips),
            "postprocessing": dataclasses.asdict(self.postprocessing),
        }
        for name in ("probabilities", "dicom_seg", "rtstruct"):
            if getattr(self, name):
                made_with[name] = True
        if self.backend != "tensorflow":
            made_with["backend"] = self.backend
        precision = self._recorded_precision([*runs, *([] if coarse is None else [coarse])])
        if precision is not None:
            made_with["precision"] = precision
        if coarse is not None:
            digest = coarse.network_digest()
            made_with |= {"coarse_sha256": digest, "dilation_voxels": self.dilation_voxels}
        return made_with

    def _recorded_precision(self, runs: Sequence[Run]) -> str | None:
        """Precision in which this machine computes, unless the networks and flags tell it."""
        if self.backend == "tensorflow":
            if self.precision is not None or all(not run.is_of_float16 for run in runs):
                return self.precision
            load_tensorflow()
        flags: dict[str, Any] = {"backend": self.backend, "precision": self.precision}
        return ", ".join(sorted({computed_precision(run, **flags) for run in runs}))

    def _make_predictor(
        self, runs: Sequence[Run], coarse: Run | None, made_with: Mapping[str, Any], gate: Gate
    ) -> CasePredictor:
        load_tensorflow()
        # --help and mistakes in flags need not wait for these.
        from fcnseg.inference import Coarse, Segmenter, load_runs, make_segmenter
        from fcnseg.inference.case_prediction import CasePredictor

        def segmenter_of(runs: Sequence[Run], flips: Sequence[Axis] = ()) -> Segmenter:
            models, info = load_runs(runs, backend=self.backend, precision=self.precision)
            return make_segmenter(models, info, flips=flips, backend=self.backend)

        segmenter = segmenter_of(runs, self.flips)
        region = None if coarse is None else Coarse(segmenter_of([coarse]), self.dilation_voxels)
        return CasePredictor(segmenter, region, self.postprocessing, made_with, gate)


def _summary(predictor: CasePredictor) -> str:
    """Describes the time of each phase over all cases, and their windows."""
    from fcnseg.inference.case_prediction import describe_windows

    if not predictor.seconds:
        return "no mask was written"
    seconds = ", ".join(f"{phase} {time:.1f} s" for phase, time in predictor.seconds.items())
    parts = [seconds, "those of different volumes are concurrent"]
    if predictor.windows:
        parts.append(describe_windows(predictor.windows))
    return "; ".join(parts)
