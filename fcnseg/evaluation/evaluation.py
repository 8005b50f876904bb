"""The scores of all cases, and the files that contain them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.evaluation.scores import OrganScores, dice_where_present, mean_or_none
from fcnseg.storage.whole_file import write_whole

JSON_FILE, CSV_FILE = "evaluation.json", "evaluation.csv"
_RENAMED = {"truth_ml": "reference_ml"}
LOST_DICE = 0.05
"""Mean Dice over the cases that have an organ, below which a network has lost it: soft Dice leaves
a lost organ at 0.00 to 0.01 (docs/decisions/0019), and one that is being found exceeds 0.05 within
an epoch or two."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores by case and organ.

    Attributes:
        organs: Class names in order, the background left out.
        cases: By case id, the scores of each organ.
        tolerances_mm: Tolerance of the surface Dice by organ; empty if unknown.
        labels_sha256: SHA-256 of the classes of the reference by case id; absent from older
            evaluations.
        rejected: Reasons why other cases have no scores, by case id.
        selection: The cases in words, such as `test split`; empty if they are those of a folder.
    """

    organs: tuple[str, ...]
    cases: Mapping[str, Mapping[str, OrganScores]]
    tolerances_mm: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels_sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)
    selection: str = ""

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

    @property
    def lost_organs(self) -> tuple[str, ...]:
        """Organs with a mean Dice below `LOST_DICE` over the cases whose reference has them."""
        dices = {
            organ: dice_where_present(case[organ] for case in self.cases.values())
            for organ in self.organs
        }
        return tuple(
            organ for organ, dice in dices.items() if dice is not None and dice < LOST_DICE
        )

    def values(self, organ: str, metric: str) -> dict[str, float]:
        """One metric of one organ by case id, for the cases that have it."""
        values = {case_id: getattr(case[organ], metric) for case_id, case in self.cases.items()}
        return {case_id: value for case_id, value in values.items() if value is not None}

    def to_json(self) -> str:
        """Formats one JSON object; an undefined score is null."""
        return json.dumps(
            {
                "mean_dice": self.mean_dice,
                "selection": self.selection,
                "tolerances_mm": dict(self.tolerances_mm),
                "labels_sha256": dict(self.labels_sha256),
                "rejected": dict(self.rejected),
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
                case_id: {organ: _scores_of(fields) for organ, fields in organs.items()}
                for case_id, organs in content["cases"].items()
            }
            names = ("tolerances_mm", "labels_sha256", "rejected")
            facts = {name: dict(content.get(name, {})) for name in names}
            selection = str(content.get("selection", ""))
            return cls(tuple(content["classes"]), cases, **facts, selection=selection)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"not an evaluation: {one_line(error)}") from error

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """Reads `evaluation.json` from a folder.

        Raises:
            InputError: If it is missing or not of this form.
        """
        path = Path(folder) / JSON_FILE
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {one_line(error)}") from error
        except InputError as error:
            raise InputError(f"{path} is {error}") from error

    def to_csv(self) -> str:
        """Formats a row per case and organ; an undefined score is empty."""
        metrics = [field.name for field in dataclasses.fields(OrganScores)]
        rows = [
            (case_id, organ, *dataclasses.astuple(organs[organ]))
            for case_id, organs in self.cases.items()
            for organ in self.organs
        ]
        return csv_text(["case_id", "organ", *metrics], rows)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes `evaluation.csv` and then `evaluation.json`, both atomically."""
        write_whole(Path(folder) / CSV_FILE, self.to_csv())
        write_whole(Path(folder) / JSON_FILE, self.to_json())


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats a table as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def _scores_of(fields: Mapping[str, float | None]) -> OrganScores:
    """The scores of an organ; earlier evaluations have fields of other names."""
    return OrganScores(**{_RENAMED.get(name, name): score for name, score in fields.items()})


def _plain(organs: Mapping[str, OrganScores]) -> dict[str, dict[str, float | None]]:
    return {organ: dataclasses.asdict(scores) for organ, scores in organs.items()}
