"""The scores of all cases, and the files that hold them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.evaluation.scores import OrganScores, mean_or_none

JSON_FILE, CSV_FILE = "evaluation.json", "evaluation.csv"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores by case and organ.

    Attributes:
        organs: Class names in order, the background left out.
        cases: By case id, the scores of each organ.
    """

    organs: tuple[str, ...]
    cases: Mapping[str, Mapping[str, OrganScores]]

    @property
    def classes(self) -> dict[str, OrganScores]:
        """By organ, the means over the cases that have a score."""
        return {
            organ: OrganScores.mean(case[organ] for case in self.cases.values())
            for organ in self.organs
        }

    @property
    def mean_dice(self) -> float | None:
        """The mean over the organs that have a Dice; None if none has."""
        return mean_or_none(scores.dice for scores in self.classes.values())

    def to_json(self) -> str:
        """One JSON object; a score that does not exist is null."""
        return json.dumps(
            {
                "mean_dice": self.mean_dice,
                "classes": _plain(self.classes),
                "cases": {case_id: _plain(scores) for case_id, scores in self.cases.items()},
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluation:
        """Reads what `to_json` wrote.

        Raises:
            InputError: If the text is not of this form.
        """
        try:
            content = json.loads(text)
            cases = {
                case_id: {organ: OrganScores(**scores) for organ, scores in organs.items()}
                for case_id, organs in content["cases"].items()
            }
            return cls(tuple(content["classes"]), cases)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"not an evaluation: {one_line(error)}") from error

    def to_csv(self) -> str:
        """A row for each case and organ; a score that does not exist is empty."""
        metrics = [field.name for field in dataclasses.fields(OrganScores)]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["case_id", "organ", *metrics])
        for case_id, organs in self.cases.items():
            for organ in self.organs:
                writer.writerow([case_id, organ, *dataclasses.astuple(organs[organ])])
        return stream.getvalue()

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes `evaluation.csv` and then `evaluation.json`, each under its name when whole."""
        for name, text in ((CSV_FILE, self.to_csv()), (JSON_FILE, self.to_json())):
            whole = Path(folder) / name
            unfinished = whole.with_suffix(".tmp")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(whole)


def _plain(organs: Mapping[str, OrganScores]) -> dict[str, dict[str, float | None]]:
    return {organ: dataclasses.asdict(scores) for organ, scores in organs.items()}
