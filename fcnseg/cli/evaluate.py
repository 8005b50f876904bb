"""Scores masks against labels: `fcnseg evaluate --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fcnseg.cli.command import Location
from fcnseg.cli.progress import progress_of
from fcnseg.cli.scored_cases import MaskSource
from fcnseg.cli.tables import print_table
from fcnseg.conversion.check_options import CheckOptions, OnMismatch
from fcnseg.conversion.rejects import CaseWarning, Reject
from fcnseg.errors import InputError
from fcnseg.evaluation import (
    CSV_FILE,
    DEFAULT_TOLERANCE_MM,
    HTML_FILE,
    JSON_FILE,
    LOST_DICE,
    METRICS,
    CaseFiles,
    Evaluation,
    OrganScores,
    Summary,
    read_case,
    report_html,
    write_picture,
)
from fcnseg.extras import require_extra
from fcnseg.figures.page import check_page_extras
from fcnseg.records.dataset_info import Split
from fcnseg.storage.whole_file import check_free, folder_for_output, write_whole
from fcnseg.volumes import LabelMap

logger = logging.getLogger(__name__)

PICTURES = "pictures"
_MOST_WORKERS = 8  # by default: each holds a case in memory
_IN_THE_TERMINAL = ("dice", "surface_dice", "hausdorff_distance_95_mm")


@dataclasses.dataclass(frozen=True)
class Scored:
    """Result of scoring a case.

    Attributes:
        case_id: Name of the case.
        scores: Scores by organ.
        label_sha256: Digest of its reference, as in `CaseVolumes`.
        warnings: Oddities of its files.
    """

    case_id: str
    scores: dict[str, OrganScores]
    label_sha256: str
    warnings: tuple[CaseWarning, ...]


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Scores predicted masks against labels, organ by organ, and reports on one page."""

    masks: Location | None = None
    """Folder of masks as fcnseg predict writes them, or with class indices of the label map. Like
    labels, images and the label map, it may be in an object store, such as s3://bucket/masks."""
    _: dataclasses.KW_ONLY
    data: Location | None = None
    """Folder of records, instead of --labels, --label_map and --images: the cases of --split, or of
    a fold, are scored against the files that they were converted from."""
    split: Split | None = None
    """Cases of --data to score; with a fold, by default validation."""
    fold: int | None = None
    """Number of a fold of --data, from 0, as in training."""
    folds: int | None = None
    """Number of folds."""
    run_dirs: tuple[Path, ...] = ()
    """Folders of all runs of a cross-validation, instead of --masks: one evaluation of all cases,
    each by its mask in RUN/masks of the run that has not seen it. --data names the records if they
    were moved."""
    labels: Location | None = None
    """Folder of labels, in the layouts of the conversion; those without a mask are skipped."""
    label_map: Location | None = None
    """YAML file with the ids of the labels that make each class."""
    images: Location | None = None
    """Folder of the CT volumes, the background of the outlines."""
    output: Path
    """Folder for evaluation.html, evaluation.json, evaluation.csv and pictures/, on this
    machine."""
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    """Surfaces within this distance of each other count as right in the surface Dice."""
    organ_tolerance_mm: dict[str, float] = dataclasses.field(default_factory=dict)
    """Tolerances of single organs, as in: liver 5 pancreas 5 spleen 3."""
    workers: int = 0
    """Number of cases at a time, each in a process of its own; 0 for one per core, at most 8."""
    geometry_tolerance_mm: float = CheckOptions.geometry_tolerance_mm
    """Largest distance of a corner of the label from the mask's."""
    on_mismatch: OnMismatch = CheckOptions.on_mismatch
    """Handling of a label on another grid: reject the case; resample_label; or trust_image, which
    gives a label of the same shape the position of the mask."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""
    overwrite: bool = False
    """Replace an evaluation that exists already."""

    def run(self) -> None:
        """Scores and draws each case, and reports; `evaluation.json` is written last.

        Raises:
            InputError: If an argument breaks a rule, or a case is rejected; the others are
                reported.
        """
        written = [self.output / name for name in (JSON_FILE, HTML_FILE, CSV_FILE)]
        check_free(written, overwrite=self.overwrite, folders=[self.output / PICTURES])
        if self.workers < 0:
            raise InputError(f"workers must be 0 or more, got {self.workers}")
        check_page_extras()
        require_extra("surface_distance")
        checks = CheckOptions(self.geometry_tolerance_mm, self.on_mismatch, accept=self.accept)
        files, label_map = self._source().open()
        tolerances_mm = self._tolerances(label_map.class_names[1:])
        with folder_for_output(self.output), _unfinished(self.output) as pictures:
            for path in written:  # of an earlier run: no longer valid
                path.unlink(missing_ok=True)
            work = partial(
                _evaluate,
                label_map=label_map,
                tolerances_mm=tolerances_mm,
                checks=checks,
                pictures=pictures,
            )
            results = _side_by_side(work, files, workers=self.workers)
            shown = progress_of(results, description="cases", total=len(files))
            self._report(list(shown), tolerances_mm, pictures)

    def _source(self) -> MaskSource:
        """The place of masks and references."""
        names = [field.name for field in dataclasses.fields(MaskSource)]
        return MaskSource(**{name: getattr(self, name) for name in names})

    def _report(
        self, results: list[Scored | Reject], tolerances_mm: Mapping[str, float], pictures: Path
    ) -> None:
        """Writes the report of the cases that have scores, and names the others."""
        scored = [result for result in results if isinstance(result, Scored)]
        rejects = [result for result in results if isinstance(result, Reject)]
        for warning in [warning for case in scored for warning in case.warnings]:
            logger.warning(f"{warning.case_id}: {warning.reason} [{warning.code}]")
        for reject in rejects:
            logger.error(f"rejected: {reject}{reject.detail and f'; {reject.detail}'}")
        if scored:
            evaluation = Evaluation(
                tuple(tolerances_mm),
                {case.case_id: case.scores for case in scored},
                tolerances_mm,
                labels_sha256={case.case_id: case.label_sha256 for case in scored},
                rejected={reject.case_id: f"{reject.reason} [{reject.code}]" for reject in rejects},
                selection=self._source().selection,
            )
            self._write(evaluation, pictures)
            if evaluation.lost_organs:
                organs = ", ".join(evaluation.lost_organs)
                logger.warning(f"lost organs, of a mean Dice below {LOST_DICE}: {organs}")
            print_table(score_table(evaluation))
            logger.info(f"wrote {self.output / HTML_FILE}")
        if rejects:
            raise InputError(
                f"rejected {len(rejects)} of {len(results)} cases; first: {rejects[0]}"
            )

    def _write(self, evaluation: Evaluation, pictures: Path) -> None:
        png = {case_id: _picture(pictures, case_id).read_bytes() for case_id in evaluation.cases}
        page = report_html(evaluation, png)
        shutil.rmtree(self.output / PICTURES, ignore_errors=True)
        pictures.rename(self.output / PICTURES)
        write_whole(self.output / HTML_FILE, page)
        evaluation.write(self.output)

    def _tolerances(self, organs: tuple[str, ...]) -> dict[str, float]:
        unknown = sorted(set(self.organ_tolerance_mm) - set(organs))
        if unknown:
            raise InputError(
                f"organ_tolerance_mm must name organs of the label map {', '.join(organs)},"
                f" got {', '.join(unknown)}"
            )
        tolerances = {o: self.organ_tolerance_mm.get(o, self.tolerance_mm) for o in organs}
        for organ, tolerance_mm in tolerances.items():
            if not 0 <= tolerance_mm < float("inf"):
                raise InputError(f"tolerance_mm of {organ} must be 0 or more, got {tolerance_mm}")
        return tolerances


@contextlib.contextmanager
def _unfinished(output: Path) -> Iterator[Path]:
    """A temporary folder for pictures until all are there."""
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=output) as folder:
        pictures = Path(folder) / PICTURES
        pictures.mkdir()
        yield pictures


def _side_by_side(
    work: Callable[..., Scored | Reject], files: list[CaseFiles], *, workers: int
) -> Iterator[Scored | Reject]:
    """Evaluates cases in processes of their own; if they are fewer than cores, organs in threads.

    Args:
        work: Evaluates one case with a number of threads.
        files: Files of the cases.
        workers: Number of processes; 0 for one per core.
    """
    cores = os.cpu_count() or 1
    workers = min(workers or min(cores, _MOST_WORKERS), len(files))
    work = partial(work, threads=max(1, cores // workers))
    if workers == 1:
        yield from map(work, files)
        return
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_ctrl_c) as pool:
        try:
            yield from pool.map(work, files)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _leave_ctrl_c() -> None:
    """Leaves Ctrl-C, which reaches all processes of a terminal, to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _evaluate(
    files: CaseFiles,
    *,
    label_map: LabelMap,
    tolerances_mm: Mapping[str, float],
    checks: CheckOptions,
    pictures: Path,
    threads: int,
) -> Scored | Reject:
    """Scores and draws one case."""
    try:
        case = read_case(files, label_map, checks)
        scores = case.scores(tolerances_mm, threads=threads)
        write_picture(case, _picture(pictures, case.case_id), scores)
    except Exception as error:  # whatever one case raises, the others are reported
        return Reject.of(error, case_id=files.case_id, stage="evaluate")
    return Scored(case.case_id, scores, case.label_sha256, case.warnings)


def _picture(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.png"


def score_table(evaluation: Evaluation) -> Table:
    """Formats a row per organ: mean and standard deviation over cases, and its worst case."""
    metrics = [METRICS[name] for name in _IN_THE_TERMINAL]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("organ", "cases", *(metric.heading for metric in metrics)):
        table.add_column(heading, justify="left" if heading == "organ" else "right", no_wrap=True)
    table.add_column("worst case")
    for organ in evaluation.organs:
        summaries = [Summary.of(evaluation.values(organ, m.field), m) for m in metrics]
        cells = [
            m.format(s.mean) if s.sd is None else f"{m.format(s.mean)} ± {m.format(s.sd)}"
            for m, s in zip(metrics, summaries, strict=True)
        ]
        dice = summaries[0]
        table.add_row(organ, str(dice.count), *cells, dice.worst[0] if dice.worst else "-")
    table.add_section()
    means = OrganScores.mean(evaluation.classes.values())
    values = [metric.format(getattr(means, metric.field)) for metric in metrics]
    table.add_row("mean", str(len(evaluation.cases)), *values)
    return table
