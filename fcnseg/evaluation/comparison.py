"""Comparison of two runs, case by case."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from fcnseg.errors import InputError, format_names
from fcnseg.evaluation.evaluation import Evaluation, csv_text
from fcnseg.evaluation.metric_facts import METRICS, Metric
from fcnseg.evaluation.plots import box_plots
from fcnseg.evaluation.scores import mean_or_none
from fcnseg.figures.page import Shaded, render

logger = logging.getLogger(__name__)

COMPARED = ("dice", "surface_dice", "hausdorff_distance_95_mm")
_SAME_VOLUME = 1e-3  # headers round the spacing of one label by up to this much


@dataclasses.dataclass(frozen=True)
class Difference:
    """One metric of one organ, second run minus first, over the cases scored in both.

    Attributes:
        organ: Name.
        metric: Field of `OrganScores`.
        by_case: Difference by case id.
        first: Mean of the first run over these cases; None without cases.
        second: Mean of the second run.
        p_value: The p value of the two-sided Wilcoxon signed-rank test; None without cases.
    """

    organ: str
    metric: str
    by_case: Mapping[str, float]
    first: float | None
    second: float | None
    p_value: float | None

    @property
    def mean(self) -> float | None:
        """Mean difference."""
        return float(np.mean(list(self.by_case.values()))) if self.by_case else None

    @property
    def better(self) -> int:
        """Number of cases in which the second run is better."""
        return sum(_gain(METRICS[self.metric], value) > 0 for value in self.by_case.values())

    @property
    def worse(self) -> int:
        """Number of cases in which the second run is worse."""
        return sum(_gain(METRICS[self.metric], value) < 0 for value in self.by_case.values())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences between two runs.

    Attributes:
        names: Display names of the two runs.
        case_ids: The cases in both runs.
        differences: For each metric, one difference per organ.
    """

    names: tuple[str, str]
    case_ids: tuple[str, ...]
    differences: tuple[Difference, ...]

    def of(self, metric: str) -> dict[str, Difference]:
        """The differences in one metric by organ."""
        return {each.organ: each for each in self.differences if each.metric == metric}

    def p_holm(self, metric: str) -> dict[str, float]:
        """The p values by organ, corrected for the number of organs (Holm 1979)."""
        p_values = {o: d.p_value for o, d in self.of(metric).items() if d.p_value is not None}
        corrected, least = {}, 0.0
        for rank, organ in enumerate(sorted(p_values, key=lambda organ: p_values[organ])):
            least = max(least, min(1.0, p_values[organ] * (len(p_values) - rank)))
            corrected[organ] = least
        return {organ: corrected[organ] for organ in p_values}

    def to_json(self) -> str:
        """One JSON object: by metric, by organ."""
        content: dict[str, object] = {"first": self.names[0], "second": self.names[1]}
        for metric in COMPARED:
            p_holm = self.p_holm(metric)
            content[metric] = {
                organ: {
                    "cases": len(each.by_case),
                    "first": each.first,
                    "second": each.second,
                    "difference": each.mean,
                    "better": each.better,
                    "worse": each.worse,
                    "p_value": each.p_value,
                    "p_holm": p_holm.get(organ),
                    "by_case": dict(each.by_case),
                }
                for organ, each in self.of(metric).items()
            }
        return json.dumps(content, indent=2)

    def to_csv(self) -> str:
        """Formats a row per case and organ with the difference of each metric."""
        columns = [self.of(metric) for metric in COMPARED]
        rows = [
            (case_id, organ, *(column[organ].by_case.get(case_id) for column in columns))
            for case_id in self.case_ids
            for organ in columns[0]
        ]
        return csv_text(["case_id", "organ", *(f"{name}_difference" for name in COMPARED)], rows)

    def to_html(self) -> str:
        """Renders one self-contained page.

        Raises:
            MissingExtraError: If matplotlib or jinja2 is not installed.
        """
        panels = [
            (METRICS[metric], {organ: each.by_case for organ, each in self.of(metric).items()})
            for metric in COMPARED
        ]
        return render(
            "comparison.html",
            names=self.names,
            organs=list(self.of("dice")),
            metrics={METRICS[metric].heading: _rows(self, metric) for metric in COMPARED},
            box_plots=box_plots(panels, zero_line=True),
            cases=_cells_by_case(self),
        )


def compare(
    first: Evaluation, second: Evaluation, *, names: tuple[str, str] = ("first", "second")
) -> Comparison:
    """Compares two runs over the cases in both.

    Args:
        first: The scores of one run.
        second: The scores of the other.
        names: Display names.

    Raises:
        InputError: If organs, tolerances or the references of a case differ, or no case is in both.
    """
    for what in ("organs", "tolerances_mm"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise InputError(f"{what} of both runs must be equal, got {one} and {other}")
    case_ids = tuple(case_id for case_id in first.cases if case_id in second.cases)
    if not case_ids:
        raise InputError(f"the runs must have cases in common, got {names[0]} and {names[1]}")
    _check_references(first, second, case_ids)
    differences = tuple(
        _difference(first, second, organ, metric) for metric in COMPARED for organ in first.organs
    )
    return Comparison(names, case_ids, differences)


def _check_references(first: Evaluation, second: Evaluation, case_ids: Sequence[str]) -> None:
    """Checks that both runs were scored against the same labels.

    Raises:
        InputError: If the labels of a case differ.
    """
    unknown = [
        case_id
        for case_id in case_ids
        if not (case_id in first.labels_sha256 and case_id in second.labels_sha256)
    ]
    differ = [
        case_id
        for case_id in case_ids
        if case_id not in unknown and first.labels_sha256[case_id] != second.labels_sha256[case_id]
    ]
    differ += [case_id for case_id in unknown if not _same_volumes(first, second, case_id)]
    if differ:
        raise InputError(
            f"both runs must be evaluated against the same labels, but those of"
            f" {len(differ)} of {len(case_ids)} cases differ: {format_names(sorted(differ))}"
        )
    if unknown:
        logger.warning(
            f"that both runs have the same labels is known by the volumes of organs alone in"
            f" {len(unknown)} of {len(case_ids)} cases, as an evaluation is older:"
            f" {format_names(unknown)}"
        )


def _same_volumes(first: Evaluation, second: Evaluation, case_id: str) -> bool:
    """Tells whether the references have organs of the same volumes, as far as both contain them."""
    pairs = [
        (first.cases[case_id][organ].reference_ml, second.cases[case_id][organ].reference_ml)
        for organ in first.organs
    ]
    return all(
        one is None or other is None or math.isclose(one, other, rel_tol=_SAME_VOLUME)
        for one, other in pairs
    )


def _difference(first: Evaluation, second: Evaluation, organ: str, metric: str) -> Difference:
    one, other = first.values(organ, metric), second.values(organ, metric)
    common = [case_id for case_id in one if case_id in other]
    by_case = {case_id: other[case_id] - one[case_id] for case_id in common}
    if not common:
        return Difference(organ, metric, by_case, None, None, None)
    before, after = (
        float(np.mean([values[case_id] for case_id in common])) for values in (one, other)
    )
    return Difference(
        organ, metric, by_case, before, after, p_value=_p_value(list(by_case.values()))
    )


def _p_value(differences: list[float]) -> float:
    """The p value of the Wilcoxon signed-rank test; 1, not undefined, if all differences are 0."""
    return float(stats.wilcoxon(differences).pvalue) if any(differences) else 1.0


def _gain(metric: Metric, difference: float) -> float:
    """The difference, positive if the second run is better."""
    return difference if metric.best == "high" else -difference


def _rows(comparison: Comparison, name: str) -> list[dict[str, str]]:
    """The rows of the table of one metric, by organ."""
    metric, p_holm = METRICS[name], comparison.p_holm(name)
    return [
        {
            "organ": organ,
            "cases": str(len(each.by_case)),
            "first": metric.format(each.first),
            "second": metric.format(each.second),
            "difference": metric.format(each.mean, signed=True),
            "better": str(each.better),
            "worse": str(each.worse),
            "p_value": _format_p_value(each.p_value),
            "p_holm": _format_p_value(p_holm.get(organ)),
        }
        for organ, each in comparison.of(name).items()
    ]


def _format_p_value(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _cells_by_case(comparison: Comparison) -> dict[str, list[Shaded]]:
    """By case the difference in mean Dice and in that of each organ, the largest loss first."""
    dice = comparison.of("dice")
    by_case = {
        case_id: [each.by_case.get(case_id) for each in dice.values()]
        for case_id in comparison.case_ids
    }
    means = {case_id: mean_or_none(values) for case_id, values in by_case.items()}
    return {
        case_id: [_difference_cell(value) for value in (means[case_id], *by_case[case_id])]
        for case_id in sorted(means, key=lambda case_id: means[case_id] or 0.0)
    }


def _difference_cell(value: float | None) -> Shaded:
    text = METRICS["dice"].format(value, signed=True)
    return Shaded(text, -4 * (value or 0.0))  # a difference of 0.2 has four fifths of the colour
