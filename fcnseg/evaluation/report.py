"""The report of an evaluation: one page for readers who judge a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fcnseg.evaluation.evaluation import LOST_DICE, Evaluation
from fcnseg.evaluation.metric_facts import METRICS, Metric, Summary
from fcnseg.evaluation.plots import box_plots
from fcnseg.evaluation.scores import OrganScores, mean_or_none
from fcnseg.figures.page import Shaded, render

HTML_FILE = "evaluation.html"
_PLOTTED = ("dice", "surface_dice", "hausdorff_distance_95_mm", "relative_volume_difference")


@dataclasses.dataclass(frozen=True)
class _Score:
    """One metric of one organ over cases, formatted for tables."""

    cases: int
    mean: str
    signed_mean: str
    sd: str
    median: str
    min: str
    max: str
    worst: tuple[str, ...]

    @classmethod
    def of(cls, values: Mapping[str, float], metric: Metric) -> _Score:
        summary = Summary.of(values, metric)
        return cls(
            summary.count,
            signed_mean=metric.format(summary.mean, signed=True),
            worst=summary.worst,
            **{
                name: metric.format(getattr(summary, name))
                for name in ("mean", "sd", "median", "min", "max")
            },
        )


@dataclasses.dataclass(frozen=True)
class _Organ:
    """An organ over all cases: its frequency, and each of its scores by field."""

    name: str
    in_reference: int
    false_negative: int
    false_positive: int
    scores: Mapping[str, _Score]

    @classmethod
    def of(cls, evaluation: Evaluation, name: str) -> _Organ:
        in_cases = [case[name] for case in evaluation.cases.values()]
        return cls(
            name,
            in_reference=sum(score.recall is not None for score in in_cases),
            false_negative=sum(score.is_false_negative for score in in_cases),
            false_positive=sum(score.is_false_positive for score in in_cases),
            scores={
                field: _Score.of(evaluation.values(name, field), metric)
                for field, metric in METRICS.items()
            },
        )


@dataclasses.dataclass(frozen=True)
class _Case:
    """A case: its Dice, the mean and that of each organ; all scores by organ; and its slices."""

    case_id: str
    mean_dice: Shaded
    dice: tuple[Shaded, ...]
    scores: Mapping[str, tuple[str, ...]]
    picture: bytes

    @classmethod
    def of(cls, case_id: str, organs: Mapping[str, OrganScores], picture: bytes) -> _Case:
        return cls(
            case_id,
            _dice_cell(_mean_dice(organs)),
            tuple(_dice_cell(scores.dice) for scores in organs.values()),
            {
                organ: tuple(m.format(getattr(scores, m.field)) for m in METRICS.values())
                for organ, scores in organs.items()
            },
            picture,
        )


def report_html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """Renders the complete page, which needs no other file.

    Args:
        evaluation: All scores.
        pictures: Slices as PNG, by case id.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
    """
    organs = [_Organ.of(evaluation, name) for name in evaluation.organs]
    cases = [
        _Case.of(
            case_id,
            {organ: evaluation.cases[case_id][organ] for organ in evaluation.organs},
            pictures[case_id],
        )
        for case_id in _worst_first(evaluation)
    ]
    lost = evaluation.lost_organs
    panels = [
        (METRICS[name], {organ: evaluation.values(organ, name) for organ in evaluation.organs})
        for name in _PLOTTED
    ]
    return render(
        "evaluation.html",
        facts=_facts(evaluation, worst=cases[0]),
        rejected=evaluation.rejected,
        lost=[organ for organ in organs if organ.name in lost],
        lost_dice=LOST_DICE,
        tolerances=_tolerances(evaluation),
        headings={field: metric.heading for field, metric in METRICS.items()},
        organs=organs,
        box_plots=box_plots(panels),
        cases=cases,
    )


def _worst_first(evaluation: Evaluation) -> list[str]:
    """Case ids by mean Dice, the lowest first; those without Dice come last."""
    means = {case_id: _mean_dice(scores) for case_id, scores in evaluation.cases.items()}
    return sorted(means, key=lambda case_id: (means[case_id] is None, means[case_id] or 0))


def _mean_dice(scores: Mapping[str, OrganScores]) -> float | None:
    return mean_or_none(score.dice for score in scores.values())


def _facts(evaluation: Evaluation, *, worst: _Case) -> list[tuple[str, str]]:
    means = evaluation.classes.values()
    facts = [
        (
            f"cases{evaluation.selection and f', {evaluation.selection}'}",
            str(len(evaluation.cases)),
        ),
        ("mean Dice", METRICS["dice"].format(evaluation.mean_dice)),
    ]
    for name in ("surface_dice", "hausdorff_distance_95_mm"):
        mean = mean_or_none(getattr(scores, name) for scores in means)
        facts.append((f"mean {METRICS[name].heading}", METRICS[name].format(mean)))
    return [*facts, (f"mean Dice of the worst case, {worst.case_id}", worst.mean_dice.text)]


def _dice_cell(dice: float | None) -> Shaded:
    """A table cell of a Dice; lower is darker."""
    return Shaded(METRICS["dice"].format(dice), 0.0 if dice is None else 0.9 * (1 - dice))


def _tolerances(evaluation: Evaluation) -> str:
    """The tolerance of the surface Dice, by organ if they differ."""
    if len(set(evaluation.tolerances_mm.values())) == 1:
        return f"{next(iter(evaluation.tolerances_mm.values())):g} mm"
    by_organ = (f"{organ} {mm:g} mm" for organ, mm in evaluation.tolerances_mm.items())
    return ", ".join(by_organ) or "not known"
