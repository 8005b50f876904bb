"""The report of an evaluation: one page for whoever must judge a model."""

from __future__ import annotations

import html
from collections.abc import Mapping

from fcnseg.evaluation.evaluation import LOST_DICE, Evaluation
from fcnseg.evaluation.metrics import METRICS, Summary
from fcnseg.evaluation.plots import box_plots
from fcnseg.evaluation.scores import OrganScores, mean_or_none
from fcnseg.figures.page import page, picture, section, shaded, table, tiles
from fcnseg.figures.palette import organ_colour

HTML_FILE = "evaluation.html"
_PLOTTED = ("dice", "surface_dice", "hausdorff_distance_95_mm", "relative_volume_difference")
_OVERVIEW = ("surface_dice", "hausdorff_distance_95_mm")

_DEFINITIONS = (
    ("Dice, IoU", "Common volume, twice over the sum of both, and over the volume of either."),
    ("precision, recall", "The part of the mask that is right; the part of the truth found."),
    (
        "surface Dice",
        "The part of both surfaces, by area, that lies within the organ's tolerance of the other.",
    ),
    (
        "HD95, HD, mean surface distance",
        "Distances between surface elements weighted by their area, as in DeepMind's"
        " surface-distance: HD95 is the distance that 95 % of the area stays within, the larger of"
        " both directions; HD is the largest distance; the mean is that of both directions.",
    ),
    ("volume difference", "Mask minus truth; in percent, of the truth."),
    (
        "missed, invented",
        "The organ is in the truth or in the mask only: its Dice and surface Dice are 0, and it has"
        " no distances, so the means of distances leave it out. An organ in neither is not scored.",
    ),
    ("sd", "Standard deviation of a sample of cases (n - 1)."),
    (
        "pictures",
        "In each plane the slice with the most wrong voxels: truth as a wide pale band, mask as a"
        " thin line. The patient's right is on the left, in the sagittal plane anterior.",
    ),
)


def report_html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """The whole page; it needs no other file.

    Args:
        evaluation: All scores.
        pictures: By case id, its slices as PNG.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    worst_first = _worst_first(evaluation)
    panels = [
        (METRICS[name], {organ: evaluation.values(organ, name) for organ in evaluation.organs})
        for name in _PLOTTED
    ]
    return page(
        "Evaluation of masks",
        tiles(_facts(evaluation, worst_first)),
        *_rejected(evaluation),
        *_lost(evaluation),
        f'<p class="quiet">{html.escape(_tolerances(evaluation))} What each score means is told at'
        " the end; a click on a heading sorts its table.</p>",
        section("Organs", _organ_table(evaluation), _all_metrics(evaluation)),
        section("Spread over cases", box_plots(panels)),
        section("Dice of each case, worst first", _case_table(evaluation, worst_first)),
        *(_case_section(evaluation, case_id, pictures[case_id]) for case_id in worst_first),
        section("What the scores mean", _definitions()),
    )


def _worst_first(evaluation: Evaluation) -> list[str]:
    """Case ids by mean Dice; those without any come last."""
    means = {case_id: _mean_dice(scores) for case_id, scores in evaluation.cases.items()}
    return sorted(means, key=lambda case_id: (means[case_id] is None, means[case_id] or 0))


def _mean_dice(scores: Mapping[str, OrganScores]) -> float | None:
    return mean_or_none(score.dice for score in scores.values())


def _facts(evaluation: Evaluation, worst_first: list[str]) -> list[tuple[str, str]]:
    means = evaluation.classes.values()
    facts = [
        ("cases", str(len(evaluation.cases))),
        ("mean Dice", METRICS["dice"].told(evaluation.mean_dice)),
    ]
    for name in ("surface_dice", "hausdorff_distance_95_mm"):
        mean = mean_or_none(getattr(scores, name) for scores in means)
        facts.append((f"mean {METRICS[name].heading}", METRICS[name].told(mean)))
    worst = METRICS["dice"].told(_mean_dice(evaluation.cases[worst_first[0]]))
    return [*facts, (f"mean Dice of the worst case, {worst_first[0]}", worst)]


def _organ_table(evaluation: Evaluation) -> str:
    """A row for each organ: how often it is there, its Dice in full, the other scores in brief."""
    header = ["organ", "cases", "missed", "invented"]
    header += ["mean Dice", "sd", "median", "min", *(METRICS[name].heading for name in _OVERVIEW)]
    header += ["volume difference (ml)", "worst cases by Dice"]
    dice = METRICS["dice"]
    rows = []
    for index, organ in enumerate(evaluation.organs, start=1):
        scores = [case[organ] for case in evaluation.cases.values()]
        summary = Summary.of(evaluation.values(organ, "dice"), dice)
        rows.append(
            [
                _organ(organ, index),
                str(summary.count),
                _count(sum(score.is_missed for score in scores)),
                _count(sum(score.is_invented for score in scores)),
                f"<b>{dice.told(summary.mean)}</b>",
                *(dice.told(value) for value in (summary.sd, summary.median, summary.min)),
                *(_mean_and_sd(evaluation, organ, name) for name in _OVERVIEW),
                _mean_and_sd(evaluation, organ, "volume_difference_ml", signed=True),
                _left(", ".join(map(_link, summary.worst))),
            ]
        )
    return table(header, rows)


def _count(cases: int) -> str:
    """A number of cases that should be none."""
    return shaded(str(cases), 0.6 if cases else 0.0)


def _mean_and_sd(evaluation: Evaluation, organ: str, name: str, *, signed: bool = False) -> str:
    metric = METRICS[name]
    summary = Summary.of(evaluation.values(organ, name), metric)
    sd = "" if summary.sd is None else f" <small>± {metric.told(summary.sd)}</small>"
    return metric.told(summary.mean, signed=signed) + sd


def _all_metrics(evaluation: Evaluation) -> str:
    """A row for each organ and metric, folded away."""
    header = ["organ", "score", "cases", "mean", "sd", "median", "min", "max", "worst cases"]
    rows = []
    for index, organ in enumerate(evaluation.organs, start=1):
        for metric in METRICS.values():
            summary = Summary.of(evaluation.values(organ, metric.field), metric)
            numbers = (summary.mean, summary.sd, summary.median, summary.min, summary.max)
            rows.append(
                [
                    _organ(organ, index),
                    _left(metric.heading),
                    str(summary.count),
                    *(metric.told(number) for number in numbers),
                    _left(", ".join(map(_link, summary.worst))),
                ]
            )
    return f"<details><summary>All scores of each organ</summary>{table(header, rows)}</details>"


def _case_table(evaluation: Evaluation, worst_first: list[str]) -> str:
    """Dice by case and organ; the lower, the darker."""
    rows = []
    for case_id in worst_first:
        scores = evaluation.cases[case_id]
        values = [_mean_dice(scores), *(scores[organ].dice for organ in evaluation.organs)]
        rows.append([_link(case_id), *map(_dice_cell, values)])
    return table(["case", "mean", *evaluation.organs], rows)


def _dice_cell(dice: float | None) -> str:
    return shaded(METRICS["dice"].told(dice), 0.0 if dice is None else 0.9 * (1 - dice))


def _case_section(evaluation: Evaluation, case_id: str, png: bytes) -> str:
    scores = evaluation.cases[case_id]
    rows = [
        [
            _organ(organ, index),
            *(metric.told(getattr(scores[organ], metric.field)) for metric in METRICS.values()),
        ]
        for index, organ in enumerate(evaluation.organs, start=1)
    ]
    scored = table(["organ", *(metric.heading for metric in METRICS.values())], rows)
    mean = METRICS["dice"].told(_mean_dice(scores))
    return section(
        f"{case_id}: mean Dice {mean}",
        picture(png, alt=f"slices of {case_id} with the outlines of truth and mask"),
        f"<details><summary>Scores of this case</summary>{scored}</details>",
        anchor=_anchor(case_id),
    )


def _rejected(evaluation: Evaluation) -> list[str]:
    """A paragraph for each case without scores."""
    return [
        f"<p><b>rejected: {html.escape(case_id)}</b>: {html.escape(reason)}</p>"
        for case_id, reason in evaluation.rejected.items()
    ]


def _lost(evaluation: Evaluation) -> list[str]:
    """A paragraph for each organ that the network has given up."""
    paragraphs = []
    for organ in evaluation.lost_organs:
        scores = [case[organ] for case in evaluation.cases.values()]
        found_in = [score for score in scores if score.recall is not None]
        missed = sum(score.is_missed for score in found_in)
        paragraphs.append(
            f"<p><b>lost organ: {html.escape(organ)}</b>: mean Dice below {LOST_DICE}; the mask has"
            f" nothing of it in {missed} of the {len(found_in)} cases that have it</p>"
        )
    return paragraphs


def _tolerances(evaluation: Evaluation) -> str:
    """One sentence on the tolerance of the surface Dice."""
    if len(set(evaluation.tolerances_mm.values())) == 1:
        told = f"{next(iter(evaluation.tolerances_mm.values())):g} mm"
    else:
        told = ", ".join(f"{organ} {mm:g} mm" for organ, mm in evaluation.tolerances_mm.items())
    return f"Tolerance of the surface Dice: {told or 'not known'}."


def _definitions() -> str:
    items = (
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in _DEFINITIONS
    )
    return f"<dl>{''.join(items)}</dl>"


def _organ(name: str, index: int) -> str:
    colour = organ_colour(index)
    return f'<i class="organ" style="background: {colour}"></i>{html.escape(name)}'


def _left(content: str) -> str:
    return f'<td class="left">{content}</td>'


def _link(case_id: str) -> str:
    return f'<a href="#{html.escape(_anchor(case_id))}">{html.escape(case_id)}</a>'


def _anchor(case_id: str) -> str:
    return f"case-{case_id}"
