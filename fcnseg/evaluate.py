"""Scores masks against labels: `python -m fcnseg.evaluate --help`."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fcnseg.command import run_command
from fcnseg.errors import InputError, require_extra
from fcnseg.evaluation import (
    CSV_FILE,
    DEFAULT_TOLERANCE_MM,
    HTML_FILE,
    JSON_FILE,
    METRICS,
    CaseFiles,
    Evaluation,
    OrganScores,
    Summary,
    pair_files,
    read_case,
    report_html,
    write_picture,
)
from fcnseg.volumes import LabelMap
from fcnseg.whole_file import make_folder, write_whole

PICTURES = "pictures"
_MOST_WORKERS = 8  # by default: each holds a case in memory
_IN_THE_TERMINAL = ("dice", "surface_dice", "hausdorff_distance_95_mm")


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Scores predicted masks against labels, organ by organ, and reports on one page."""

    masks: Path
    """Folder of masks with class indices, as fcnseg.predict writes them."""
    labels: Path
    """Folder of label volumes; those without a mask are passed over."""
    label_map: Path
    """YAML file that says which ids of the labels make each class."""
    output: Path
    """Folder for evaluation.html, evaluation.json, evaluation.csv and pictures/."""
    images: Path | None = None
    """Folder of the CT volumes, drawn under the outlines."""
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    """Surfaces within this distance of each other count as right in the surface Dice."""
    organ_tolerance_mm: dict[str, float] = dataclasses.field(default_factory=dict)
    """Tolerances of single organs, as in: liver 5 pancreas 5 spleen 3."""
    workers: int = 0
    """Cases in work at one time, each in a process of its own; 0 for one a core, at most 8."""

    def run(self) -> None:
        """Scores and draws each case, and reports; `evaluation.json` comes last."""
        if self.workers < 0:
            raise InputError(f"workers must be 0 or more, got {self.workers}")
        for module in ("matplotlib", "surface_distance"):
            require_extra(module, "evaluation")
        label_map = LabelMap.read(self.label_map)
        tolerances_mm = self._tolerances(label_map.class_names[1:])
        files = pair_files(self.masks, self.labels, self.images)
        make_folder(self.output / PICTURES, argument="output")
        for name in (JSON_FILE, HTML_FILE, CSV_FILE):  # of an earlier run: no longer true
            (self.output / name).unlink(missing_ok=True)
        results = self._evaluate_all(files, label_map, tolerances_mm)
        console = Console(stderr=True)
        tracked = track(results, "cases", total=len(files), console=console, transient=True)
        evaluation = Evaluation(tuple(tolerances_mm), dict(tracked), tolerances_mm)
        pictures = {case_id: self._picture(case_id).read_bytes() for case_id in evaluation.cases}
        write_whole(self.output / HTML_FILE, report_html(evaluation, pictures))
        evaluation.write(self.output)
        Console().print(score_table(evaluation))

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

    def _evaluate_all(
        self, files: list[CaseFiles], label_map: LabelMap, tolerances_mm: Mapping[str, float]
    ) -> Iterator[tuple[str, dict[str, OrganScores]]]:
        """Cases side by side in processes; where they are fewer than cores, organs in threads."""
        cores = os.cpu_count() or 1
        workers = min(self.workers or min(cores, _MOST_WORKERS), len(files))
        threads = max(1, cores // workers)
        work = partial(
            self._evaluate, label_map=label_map, tolerances_mm=tolerances_mm, threads=threads
        )
        if workers == 1:
            yield from map(work, files)
            return
        # Spawned, not forked: a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(work, files)

    def _evaluate(
        self,
        files: CaseFiles,
        *,
        label_map: LabelMap,
        tolerances_mm: Mapping[str, float],
        threads: int,
    ) -> tuple[str, dict[str, OrganScores]]:
        case = read_case(files, label_map)
        scores = case.scores(tolerances_mm, threads=threads)
        write_picture(case, self._picture(case.case_id), scores)
        return case.case_id, scores

    def _picture(self, case_id: str) -> Path:
        return self.output / PICTURES / f"{case_id}.png"


def score_table(evaluation: Evaluation) -> Table:
    """A row for each organ: mean and standard deviation over cases, and its worst case."""
    metrics = [METRICS[name] for name in _IN_THE_TERMINAL]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("organ", "cases", *(metric.heading for metric in metrics)):
        table.add_column(heading, justify="left" if heading == "organ" else "right")
    table.add_column("worst case")
    for organ in evaluation.organs:
        summaries = [Summary.of(evaluation.values(organ, m.field), m) for m in metrics]
        told = [
            m.told(s.mean) if s.sd is None else f"{m.told(s.mean)} ± {m.told(s.sd)}"
            for m, s in zip(metrics, summaries, strict=True)
        ]
        dice = summaries[0]
        table.add_row(organ, str(dice.count), *told, dice.worst[0] if dice.worst else "-")
    table.add_section()
    means = OrganScores.mean(evaluation.classes.values())
    values = [metric.told(getattr(means, metric.field)) for metric in metrics]
    table.add_row("mean", str(len(evaluation.cases)), *values)
    return table


def main() -> None:
    """The command line."""
    run_command(EvaluateCommand)


if __name__ == "__main__":
    main()
