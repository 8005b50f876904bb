"""The report of a search, at any time, from its files alone."""

from __future__ import annotations

import dataclasses
import math
import random
import re

import pytest

from fcnseg.cli.command import run_command
from fcnseg.config import Config, override
from fcnseg.errors import InputError
from tuning.importance import importance, place
from tuning.report import HPARAMS_FOLDER, REPORT_FILE, ReportCommand, Summary
from tuning.trials import Outcome, Progress, Search, Trial

SPACE = {
    "training.learning_rate": {"float": [1e-4, 1e-1], "log": True, "step": None},
    "loss.name": {"choice": ["dice", "dice_cross_entropy"]},
    "patches.batch_size": {"int": [1, 6], "log": False, "step": None},
}
SEARCH = Search(
    tuner="hyperband",
    objective="val_dice",
    seed=0,
    space=SPACE,
    config=override(Config(), {"training.epochs": 9}),
    data="records",
    data_digest="0" * 64,
)


def trials_of(count):
    """A first rung whose objective follows the learning rate, and a second one."""
    rng = random.Random(0)
    made = [
        Trial("0", {}, None, 9, began="2026-01-02T10:00:00+00:00").ended_with(Outcome(0.3, 0.3, 9))
    ]
    for number in range(1, count):
        rate = 10 ** rng.uniform(-4, -1)
        settings = {
            "training.learning_rate": rate,
            "loss.name": rng.choice(["dice", "dice_cross_entropy"]),
            "patches.batch_size": rng.randint(1, 6),
        }
        score = 0.9 - 0.1 * abs(math.log10(rate) + 2)
        trial = Trial(str(number), settings, {}, 1, 0, began="2026-01-02T10:00:00+00:00")
        made.append(trial.ended_with(Outcome(score, score, 1, peak_bytes=2**30, seconds=60)))
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "search").mkdir()
    SEARCH.begin_or_resume(tmp_path / "search")
    return tmp_path / "search"


def report(folder, **flags):
    ReportCommand(folder, **flags).run()
    return (folder / REPORT_FILE).read_text()


def test_brackets_in_the_reason_of_a_failure_are_no_markup(folder, capsys):
    began = "2026-01-02T10:00:00+00:00"
    failed = Trial("0", {}, None, 9, began=began).ended_with(Outcome(None, error="no [/job:a]"))
    Progress((failed,)).write(folder)
    assert "no [/job:a]" in report(folder)
    assert "no [/job:a]" in capsys.readouterr().out


def test_no_column_of_a_narrow_terminal_is_left_out(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    Progress(tuple(trials_of(3))).write(folder)
    report(folder)
    said = capsys.readouterr().out
    for word in ("trial", "settings", "training.learning_rate=", "epochs", "minutes", "GiB"):
        assert word in said


def test_a_search_of_no_trials_has_a_report(folder):
    page = report(folder)
    assert "Not over yet." in page
    assert "Best so far" not in page


def test_a_running_search_has_all_there_is_to_see(folder, capsys):
    trials = trials_of(20)
    broken = Trial("20", {"training.learning_rate": 0.1}, {}, 1, 0)
    trials.append(
        broken.ended_with(Outcome(None, error="ended by SIGSEGV & more", peak_bytes=3 * 2**30))
    )
    best = max(trials[1:20], key=lambda trial: trial.objective)
    trials.append(dataclasses.replace(best, trial_id=f"{best.root}.1", until_epoch=3, rung=1))
    trials.append(Trial("21", {"training.learning_rate": 0.05}, {}, 1, 0))
    Progress(tuple(trials), seconds=7200).write(folder)
    page = report(folder)
    for heading in ("Best so far against time", "Importance of each setting", "Rungs", "Failures"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 3
    assert "ended by SIGSEGV &amp; more" in page
    assert "logs/20.log" in page
    assert "<b>2.00</b>hours" in page
    assert f"<td>{best.root}.1</td>" in page
    assert not re.search(r"(src|href)=\"http", page)  # it needs no other file
    said = capsys.readouterr().out
    for title in ("Trials", "Importance of each setting", "Rungs", "Failures"):
        assert f" {title} " in said
    assert "SIGSEGV" in said


def test_the_best_of_a_page_has_trained_to_the_end(folder):
    """A first rung may have a higher objective for now."""
    Progress(tuple(trials_of(5))).write(folder)
    assert "Best so far: trial 0" in report(folder)


def test_a_finished_search_says_why_it_ended(folder):
    Progress(tuple(trials_of(3)), ended="all 3 trials of max_trials are tried").write(folder)
    assert "Over: all 3 trials of max_trials are tried." in report(folder)


def test_a_search_is_not_over_while_a_trial_runs(folder):
    """No other trial begins, unless this one is promoted."""
    trials = [*trials_of(3), Trial("3", {"training.learning_rate": 0.05}, {}, 1, 0)]
    Progress(tuple(trials), ended="all 4 trials of max_trials are tried").write(folder)
    page = report(folder)
    assert "Not over yet." in page
    assert "Over: " not in page


def test_what_matters_is_the_most_important():
    own = Summary(SEARCH, Progress()).own
    found = importance(trials_of(40), SPACE, own)
    assert next(iter(found)) == "training.learning_rate"
    assert found["training.learning_rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert importance(trials_of(4), SPACE, own) == {}


NOTHING = {
    "training.warmup_steps": {"int": [0, 50], "log": False, "step": None},
    "loss.ignore_label": {"choice": [None, 2]},
    "training.learning_rate": {"float": [1e-4, 1e-1], "log": True, "step": None},
}


@pytest.mark.parametrize("warmup", [{"training.warmup_steps": 20}, {}])
def test_a_value_that_is_none_is_in_the_charts(tmp_path, warmup):
    """The base's warm-up steps, and one of a list of choices."""
    search = dataclasses.replace(SEARCH, space=NOTHING)
    settings = {"loss.ignore_label": None, "training.learning_rate": 0.01, **warmup}
    trials = [
        Trial(str(number), settings if number else {}, {}, 9, began="2026-01-02T10:00:00+00:00")
        for number in range(8)
    ]
    ended = [trial.ended_with(Outcome(0.1 * float(trial.trial_id), 0.5, 1)) for trial in trials]
    search.begin_or_resume(tmp_path)
    Progress(tuple(ended)).write(tmp_path)
    page = report(tmp_path, hparams=True)
    assert page.count("<svg") == 3
    assert ">null<" in page


@pytest.mark.parametrize(
    ("value", "values", "place_of_it"),
    [
        (None, {"int": [0, 50]}, -0.05),
        (None, {"float": [1e-4, 1], "log": True}, -0.05),
        (None, {"choice": [None, 2]}, 0),
        (3, {"choice": [None, 2]}, -0.05),
        (3, {"choice": [2]}, -0.05),
        (25, {"int": [0, 50]}, 0.5),
        (0.0, {"float": [1e-4, 1], "log": True}, -0.05),
        (-50, {"int": [0, 50]}, -0.05),
        (51, {"int": [0, 50]}, 1.05),
    ],
)
def test_a_value_outside_the_space_is_beyond_the_end_of_its_axis(value, values, place_of_it):
    key = "training.warmup_steps"
    trial = Trial("0", {}, None, 9)
    assert place(trial, key, values, {key: value}) == pytest.approx(place_of_it)


def test_trials_are_there_for_hparams(folder):
    Progress(tuple(trials_of(3))).write(folder)
    report(folder, hparams=True)
    written = [path.read_bytes() for path in (folder / HPARAMS_FOLDER).glob("*/*tfevents*")]
    assert len(written) == 3
    assert all(b"training.learning_rate" in events and b"val_dice" in events for events in written)


def test_a_folder_of_something_else_is_named(tmp_path, capsys):
    with pytest.raises(InputError, match="no search in .*: search.json is missing"):
        Search.read(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_command(ReportCommand, [str(tmp_path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: no search in ")
