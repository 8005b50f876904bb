import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from scipy import stats

from fcnseg.cli.compare import CompareCommand
from fcnseg.errors import InputError
from fcnseg.evaluation import METRICS, Evaluation, OrganScores, Summary, compare

ORGANS = ("liver", "spleen")
TOLERANCES_MM = {"liver": 5.0, "spleen": 3.0}


def run(*dice_of_cases, tolerances_mm=TOLERANCES_MM, organs=ORGANS):
    """An evaluation of cases c0, c1 ... with the same scores for each organ; None is a miss."""
    scores = [
        OrganScores(dice=0.0, precision=None, recall=0.0)
        if dice is None
        else OrganScores(dice=dice, surface_dice=dice, hausdorff_distance_95_mm=10 * (1 - dice))
        for dice in dice_of_cases
    ]
    cases = {f"c{index}": dict.fromkeys(organs, score) for index, score in enumerate(scores)}
    return Evaluation(organs, cases, tolerances_mm)


def test_differences_are_second_minus_first():
    liver = compare(run(0.5, 0.75, 0.5), run(0.75, 0.75, 0.25)).of("dice")["liver"]
    assert liver.by_case == {"c0": 0.25, "c1": 0.0, "c2": -0.25}
    assert (liver.better, liver.worse, liver.mean) == (1, 1, 0.0)


def test_a_smaller_distance_is_better():
    distance = compare(run(0.5, 0.5), run(0.75, 1.0)).of("hausdorff_distance_95_mm")["spleen"]
    assert distance.mean == pytest.approx(-3.75)
    assert (distance.better, distance.worse) == (2, 0)


def test_only_cases_with_a_score_in_both_are_compared():
    comparison = compare(run(0.5, 0.5, 0.5), run(0.75, None))
    assert comparison.case_ids == ("c0", "c1")
    assert list(comparison.of("dice")["liver"].by_case) == ["c0", "c1"]
    distance = comparison.of("hausdorff_distance_95_mm")["liver"]
    assert list(distance.by_case) == ["c0"]
    assert distance.first == pytest.approx(5.0)


def test_p_is_that_of_wilcoxons_signed_rank_test():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 12))
    comparison = compare(run(*first), run(*second))
    p_value = stats.wilcoxon(second, first).pvalue
    assert comparison.of("dice")["liver"].p_value == pytest.approx(p_value)
    assert comparison.p_holm("dice")["liver"] == pytest.approx(min(1, 2 * p_value))


def test_holm_corrects_the_smallest_the_most():
    better = {"liver": [0.1] * 8, "spleen": [0.1] * 6 + [-0.1, -0.2]}  # spleen: less clear
    first = run(*[0.5] * 8)
    cases = {
        case_id: {
            organ: OrganScores(dice=0.5 + better[organ][index] * (index + 1) / 8)
            for organ in ORGANS
        }
        for index, case_id in enumerate(first.cases)
    }
    comparison = compare(first, Evaluation(ORGANS, cases, TOLERANCES_MM))
    p = {organ: each.p_value for organ, each in comparison.of("dice").items()}
    assert p["liver"] < p["spleen"]
    assert comparison.p_holm("dice") == pytest.approx(
        {"liver": 2 * p["liver"], "spleen": p["spleen"]}
    )


def test_equal_runs_have_no_evidence_of_a_difference():
    comparison = compare(run(0.5, 0.75), run(0.5, 0.75))
    assert {each.p_value for each in comparison.differences} == {1.0}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run(0.5, organs=("liver", "kidney")), "organs of both runs must be equal.*kidney"),
        (run(0.5, tolerances_mm={"liver": 1.0, "spleen": 3.0}), "tolerances_mm of both runs"),
        (run(), "must have cases in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        compare(run(0.5), other)


def against(evaluation, **digests):
    return dataclasses.replace(evaluation, labels_sha256=digests)


def test_runs_against_different_labels_are_refused():
    one = against(run(0.5, 0.5), c0="1", c1="2")
    compare(one, against(run(0.75, 0.5), c0="1", c1="2"))
    with pytest.raises(InputError, match="against the same labels.* 1 of 2 cases differ: c1"):
        compare(one, against(run(0.75, 0.5), c0="1", c1="3"))


def with_reference_ml(evaluation, reference_ml):
    cases = {
        case_id: {
            organ: dataclasses.replace(scores, reference_ml=reference_ml)
            for organ, scores in organs.items()
        }
        for case_id, organs in evaluation.cases.items()
    }
    return dataclasses.replace(evaluation, cases=cases)


def test_labels_of_an_older_evaluation_are_known_by_their_volumes(caplog):
    older = with_reference_ml(run(0.5), 100.0)
    newer = against(with_reference_ml(run(0.75), 100.0), c0="1")
    compare(older, newer)
    assert "by the volumes of organs alone in 1 of 1 cases, as an evaluation is older: c0" in (
        caplog.text
    )
    with pytest.raises(InputError, match="against the same labels.* 1 of 1 cases differ: c0"):
        compare(older, against(with_reference_ml(run(0.75), 101.0), c0="1"))


def test_a_comparison_is_replaced_only_when_told_to(tmp_path):
    run(0.5, 0.6).write(tmp_path)
    command = CompareCommand(tmp_path, tmp_path, tmp_path / "out")
    command.run()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="comparison.html is there already: give --overwrite"):
        command.run()
    dataclasses.replace(command, overwrite=True).run()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_command_writes_page_csv_and_json(tmp_path, capsys):
    for name, evaluation in (("a", run(0.5, 0.6, None)), ("b<i>", run(0.75, 0.5, 0.25))):
        (tmp_path / name).mkdir()
        evaluation.write(tmp_path / name)
    CompareCommand(tmp_path / "a", tmp_path / "b<i>", tmp_path / "out").run()
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["dice"]["liver"]["by_case"] == pytest.approx(
        {"c0": 0.25, "c1": -0.1, "c2": 0.25}
    )
    assert content["hausdorff_distance_95_mm"]["liver"]["cases"] == 2
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/comparison.csv").read_text())))
    assert [row["case_id"] for row in rows] == ["c0", "c0", "c1", "c1", "c2", "c2"]
    assert rows[4]["hausdorff_distance_95_mm_difference"] == ""
    page = (tmp_path / "out/comparison.html").read_text()
    assert "b&lt;i&gt;" in page
    assert "b<i>" not in page
    assert "+0.133" in capsys.readouterr().out  # (.25 - .1 + .25) / 3


def test_a_folder_without_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"evaluation.json cannot be read"):
        CompareCommand(tmp_path, tmp_path, tmp_path / "out").run()
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(InputError, match=r"evaluation.json is not an evaluation"):
        CompareCommand(tmp_path, tmp_path, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


def test_every_score_is_in_the_table_of_metrics():
    assert set(METRICS) == set(OrganScores.__dataclass_fields__)


@pytest.mark.parametrize(
    ("metric", "worst"),
    [
        ("dice", ("a", "b", "c")),  # the lowest
        ("hausdorff_distance_mm", ("d", "c", "b")),  # the highest
        ("volume_difference_ml", ("a", "d", "c")),  # the farthest from zero
        ("reference_ml", ()),  # no way is worse
    ],
)
def test_worst_cases_of_a_metric(metric, worst):
    summary = Summary.of({"a": -9.0, "b": 0.0, "c": 1.0, "d": 4.0}, METRICS[metric])
    assert summary.worst == worst
    assert (summary.mean, summary.median, summary.min, summary.max) == (-1.0, 0.5, -9.0, 4.0)
    assert summary.sd == pytest.approx(np.std([-9, 0, 1, 4], ddof=1))


def test_one_case_has_no_standard_deviation():
    assert Summary.of({"a": 0.5}, METRICS["dice"]).sd is None
    assert Summary.of({}, METRICS["dice"]) == Summary(0)
