"""Scores masks against labels: `python -m fcnseg.evaluate --help`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fcnseg.command import run_command
from fcnseg.errors import require_extra
from fcnseg.evaluation import (
    CSV_FILE,
    JSON_FILE,
    CaseFiles,
    Evaluation,
    OrganScores,
    pair_files,
    read_case,
    write_picture,
)
from fcnseg.evaluation.scores import mean_or_none
from fcnseg.volumes import LabelMap

PICTURES = "pictures"


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Scores predicted masks against labels and draws them."""

    masks: Path
    """Folder of masks with class indices, as fcnseg.predict writes them."""
    labels: Path
    """Folder of label volumes; those without a mask are passed over."""
    label_map: Path
    """YAML file that says which ids of the labels make each class."""
    output: Path
    """Folder for evaluation.json, evaluation.csv and pictures/."""
    images: Path | None = None
    """Folder of the CT volumes, drawn under the outlines."""

    def run(self) -> None:
        """Scores and draws each case; `evaluation.json` comes last."""
        require_extra("matplotlib", "evaluation")
        label_map = LabelMap.read(self.label_map)
        files = pair_files(self.masks, self.labels, self.images)
        (self.output / PICTURES).mkdir(parents=True, exist_ok=True)
        for name in (JSON_FILE, CSV_FILE):  # of an earlier run: no longer true
            (self.output / name).unlink(missing_ok=True)
        cases = {
            case.case_id: self._evaluate(case, label_map)
            for case in track(files, "cases", console=Console(stderr=True), transient=True)
        }
        evaluation = Evaluation(label_map.class_names[1:], cases)
        evaluation.write(self.output)
        Console().print(dice_table(evaluation))

    def _evaluate(self, files: CaseFiles, label_map: LabelMap) -> dict[str, OrganScores]:
        case = read_case(files, label_map)
        picture = self.output / PICTURES / f"{case.case_id}.png"
        write_picture(case, picture, label_map.class_names)
        return case.scores(label_map.class_names)


def dice_table(evaluation: Evaluation) -> Table:
    """Dice by case and organ, with means over both."""
    table = Table(title="Dice", box=SIMPLE_HEAD, padding=0)
    table.add_column("case", no_wrap=True)
    for name in (*evaluation.organs, "mean"):
        table.add_column(name, justify="right")
    for case_id, scores in evaluation.cases.items():
        table.add_row(case_id, *_row(scores))
    table.add_section()
    table.add_row("mean", *_row(evaluation.classes))
    return table


def _row(scores: Mapping[str, OrganScores]) -> list[str]:
    """A cell an organ and one for their mean; a dash where there is no score."""
    values = [score.dice for score in scores.values()]
    return ["-" if dice is None else f"{dice:.3f}" for dice in (*values, mean_or_none(values))]


def main() -> None:
    """The command line."""
    run_command(EvaluateCommand)


if __name__ == "__main__":
    main()
