"""What is proposed, and when a search ends; outcomes are given, nothing is trained."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
import yaml

from fcnseg.config import Config, override
from fcnseg.errors import ConfigError
from tuning import running
from tuning.oracles import ORACLES, FailedTrialsError, Limits
from tuning.space import SearchSpace
from tuning.space_checks import checked_space
from tuning.trials import Outcome, Progress, outcome_file

BASE = override(Config(), {"training.epochs": 9, "training.steps_per_epoch": 10})
RATES = {"training.learning_rate": {"float": [1e-4, 1e-1], "log": True}}
FEW = {
    "training.learning_rate": {"choice": [0.1, 0.2, 0.3]},
    "patches.batch_size": {"int": [1, 6]},
}
CONDITIONAL = {
    "loss.name": {"choice": ["dice", "tversky"]},
    "loss.alpha": {"float": [0.2, 0.4], "step": 0.1, "when": {"loss.name": "tversky"}},
}
# A condition on a setting that has one itself, and two conditions at once.
CHAIN = {
    "training.optimizer": {"choice": ["adam", "sgd"]},
    "training.schedule": {"choice": ["cosine", "poly"], "when": {"training.optimizer": "sgd"}},
    "loss.name": {"choice": ["dice", "tversky"]},
    "training.poly_power": {
        "choice": [0.8, 0.95],
        "when": {"training.schedule": "poly", "loss.name": "dice"},
    },
}
KINDS = list(ORACLES)


def make(folder, kind, space, *, seed=0, trials=None, hours=None, **resumed):
    """The oracle of a search in a folder, new or not."""
    (folder / "space.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    (folder / "outcomes").mkdir(exist_ok=True)
    checked = checked_space(SearchSpace.read(folder / "space.yaml"), BASE)
    seconds = None if hours is None else hours * 3600
    limits = Limits(trials, seconds)
    oracle = ORACLES[kind](
        checked, BASE, folder=folder, objective="val_dice", limits=limits, seed=seed
    )
    oracle.reload(**resumed)
    return oracle


def by_rate(trial):
    """A higher rate is better."""
    return trial.settings.get("training.learning_rate", 1e-3)


def end(oracle, trial_id, objective, *, by_settings=False):
    error = "boom" if objective is None else None
    outcome = Outcome(objective, error=error, is_by_settings=by_settings)
    outcome.write(outcome_file(oracle.folder, trial_id))
    oracle.end_trial(oracle.trials[trial_id])


def noted(oracle, trial_id):
    return next(trial for trial in oracle.progress.trials if trial.trial_id == trial_id)


def drive(oracle, *, score=by_rate, failing=(), most=100, by_settings=False):
    """Runs one trial after the other; gives the oracle's last answer."""
    for _ in range(most):
        trial = oracle.create_trial("worker0")
        if trial.status != "RUNNING":
            return trial.status
        failed = trial.trial_id in failing
        objective = None if failed else score(noted(oracle, trial.trial_id))
        end(oracle, trial.trial_id, objective, by_settings=by_settings and objective is None)
    return "RUNNING"


def settings_of(oracle):
    return [json.dumps(trial.settings, sort_keys=True) for trial in oracle.progress.trials]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["random", "grid", "bayesian"])
def test_each_setting_is_tried_once(tmp_path, kind, seed):
    """18 settings, and the base configuration, which is none of them."""
    oracle = make(tmp_path, kind, FEW, seed=seed, trials=30)
    assert drive(oracle) == "STOPPED"
    assert len(settings_of(oracle)) == len(set(settings_of(oracle))) == 19
    assert oracle.ended == "all settings of the search space are tried: 19 trials"


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_configuration_is_trial_0_and_no_other(tmp_path, kind):
    space = {"patches.batch_size": {"choice": [BASE.patches.batch_size, 5]}}
    oracle = make(tmp_path, kind, space, trials=9)
    drive(oracle)
    first, *others = oracle.progress.trials
    assert (first.trial_id, first.settings, first.until_epoch) == ("0", {}, 9)
    assert {trial.settings["patches.batch_size"] for trial in others} == {5}


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_trials_is_kept(tmp_path, kind):
    space = RATES if kind != "grid" else FEW
    oracle = make(tmp_path, kind, space, trials=6)
    assert drive(oracle) == "STOPPED"
    assert {trial.root for trial in oracle.progress.trials} == set("012345")
    assert oracle.ended == "all 6 trials of max_trials are tried"


@pytest.mark.parametrize("kind", ["random", "bayesian", "hyperband"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_repeats_and_another_does_not(tmp_path, kind, seed):
    found = []
    for name, used in (("one", seed), ("again", seed), ("other", seed + 1)):
        oracle = make(tmp_path / name, kind, RATES, seed=used, trials=7)
        drive(oracle)
        found.append(settings_of(oracle))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]  # later ones may all go to one end of the range


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_kept(tmp_path, kind):
    oracle = make(tmp_path, kind, CONDITIONAL, trials=20)
    drive(oracle)
    fresh = [trial.settings for trial in oracle.progress.trials[1:] if trial.rung == 0]
    assert {("loss.alpha" in each) for each in fresh if each["loss.name"] == "tversky"} == {True}
    assert {("loss.alpha" in each) for each in fresh if each["loss.name"] == "dice"} == {False}
    assert len(fresh) == 1 + 3


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_may_depend_on_conditions(tmp_path, kind):
    oracle = make(tmp_path, kind, CHAIN, trials=40)
    drive(oracle)
    fresh = [trial.settings for trial in oracle.progress.trials[1:] if trial.rung == 0]
    assert len({json.dumps(each, sort_keys=True) for each in fresh}) == len(fresh) == 2 + 2 + 3
    for each in fresh:
        assert ("training.schedule" in each) == (each["training.optimizer"] == "sgd")
        is_poly = each.get("training.schedule") == "poly" and each["loss.name"] == "dice"
        assert ("training.poly_power" in each) == is_poly


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("killed_in_trial", [False, True])
def test_a_search_resumes_from_its_list_of_trials_at_any_moment(tmp_path, kind, killed_in_trial):
    space = RATES if kind != "grid" else FEW
    drive(undisturbed := make(tmp_path / "at once", kind, space, trials=8))
    for _ in range(100):
        oracle = make(tmp_path / "killed", kind, space, trials=8)
        trial = oracle.create_trial("worker0")
        if trial.status != "RUNNING":
            break
        if killed_in_trial:  # it is given again, and not another one
            oracle = make(tmp_path / "killed", kind, space, trials=8)
            assert oracle.create_trial("worker1").trial_id == trial.trial_id
        end(oracle, trial.trial_id, by_rate(noted(oracle, trial.trial_id)))
    found = Progress.read(tmp_path / "killed").trials
    assert [(each.trial_id, each.settings, each.objective) for each in found] == [
        (each.trial_id, each.settings, each.objective) for each in undisturbed.progress.trials
    ]


# Nine settings in the first rung, of which 6, 7 and so on are better (seed 0).
PROMOTED = {
    (): ["9.1", "6.1", "2.1"],
    ("1",): ["9.1", "6.1", "2.1"],
    ("9",): ["6.1", "2.1", "1.1"],
    ("1", "4", "9"): ["6.1", "2.1", "8.1"],
    tuple("12345678"): ["9.1"],
}


@pytest.mark.parametrize("failing", PROMOTED)
def test_hyperband_promotes_the_best_that_did_not_fail(tmp_path, failing):
    oracle = make(tmp_path, "hyperband", RATES, trials=10)
    if len(failing) < 5:
        drive(oracle, failing=failing)
    else:
        drive_many_failures(oracle, failing)
    rungs = {
        rung: [trial for trial in oracle.progress.trials if trial.rung == rung] for rung in (1, 2)
    }
    assert [trial.trial_id for trial in rungs[1]] == PROMOTED[failing]
    assert [trial.trial_id for trial in rungs[2]] == [PROMOTED[failing][0].replace(".1", ".2")]
    assert [rungs[rung][0].until_epoch for rung in (1, 2)] == [3, 9]
    settings = {trial.root: trial.settings for trial in oracle.progress.trials if not trial.rung}
    assert all(each.settings == settings[each.root] for each in rungs[1] + rungs[2])


def drive_many_failures(oracle, failing):
    """So many in a row end a search; here they end together."""
    trials = [oracle.create_trial(f"worker{number}") for number in range(10)]
    for trial in reversed(trials):
        failed = trial.trial_id in failing
        end(oracle, trial.trial_id, None if failed else by_rate(noted(oracle, trial.trial_id)))
        oracle.error = None
    drive(oracle)


def test_hyperband_promotes_the_same_with_workers_at_any_pace(tmp_path):
    drive(alone := make(tmp_path / "alone", "hyperband", RATES, trials=10))
    together = make(tmp_path / "together", "hyperband", RATES, trials=10)
    running = {}
    for turn in range(200):
        worker = f"worker{turn % 3}"
        if worker in running and (turn * 7) % 5 < 3:
            trial_id = running.pop(worker)
            end(together, trial_id, by_rate(noted(together, trial_id)))
        trial = together.create_trial(worker)
        if trial.status == "RUNNING":
            running[worker] = trial.trial_id
        elif trial.status == "STOPPED" and not running:
            break
    found = [
        {(trial.trial_id, json.dumps(trial.settings)) for trial in oracle.progress.trials}
        for oracle in (alone, together)
    ]
    assert found[0] == found[1]


def test_hyperband_halves_a_space_smaller_than_its_bracket(tmp_path):
    space = {"training.learning_rate": {"choice": [0.1, 0.2, 0.3]}}
    oracle = make(tmp_path, "hyperband", space)
    assert drive(oracle) == "STOPPED"
    until = [(trial.trial_id, trial.until_epoch) for trial in oracle.progress.trials]
    best = next(
        t.root for t in oracle.progress.trials if t.settings == {"training.learning_rate": 0.3}
    )
    assert until == [("0", 9), ("1", 1), ("2", 1), ("3", 1), (f"{best}.1", 3), (f"{best}.2", 9)]
    assert oracle.losers() == {"1", "2", "3"} - {best}


@pytest.mark.parametrize(
    ("epochs", "every", "validations"), [(2, 1, 2), (10, 5, 2), (9, 5, 2), (5, 9, 1)]
)
def test_hyperband_without_a_rung_to_stop_at_is_refused(tmp_path, epochs, every, validations):
    """Each trial would be a complete training."""
    base = override(BASE, {"training.epochs": epochs, "training.validate_every": every})
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    space = SearchSpace.read(tmp_path / "space.yaml")
    message = (
        f"tuner hyperband must have at least 3 validations to stop trials at, got {validations}:"
        f" training.epochs is {epochs} and training.validate_every {every}"
    )
    with pytest.raises(ConfigError, match=message):
        ORACLES["hyperband"](
            space, base, folder=tmp_path, objective="val_dice", limits=Limits(8), seed=0
        )


def test_rungs_end_at_validations(tmp_path):
    every = {"training.validate_every": 2, "training.epochs": 9}
    base = override(BASE, every)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    (tmp_path / "outcomes").mkdir()
    space = checked_space(SearchSpace.read(tmp_path / "space.yaml"), base)
    oracle = ORACLES["hyperband"](
        space, base, folder=tmp_path, objective="val_dice", limits=Limits(8), seed=0
    )
    drive(oracle)
    assert {trial.until_epoch for trial in oracle.progress.trials} == {4, 9}


def test_a_worker_waits_for_what_a_running_trial_may_lead_to(tmp_path):
    space = {"training.learning_rate": {"choice": [0.1, 0.2, 0.3]}}
    oracle = make(tmp_path, "hyperband", space)
    for number in range(4):
        oracle.create_trial(f"worker{number}")
    assert oracle.create_trial("idle").status == "IDLE"
    for trial in "0123":
        end(oracle, trial, 0.5)
    assert oracle.create_trial("idle").trial_id == "1.1"


@pytest.mark.parametrize("kind", KINDS)
def test_the_trial_of_a_lost_worker_is_run_by_another(tmp_path, kind):
    """Two trials begin on workers that are never seen again, as after a search on a laptop."""
    oracle = make(tmp_path, kind, FEW, trials=2)
    assert [oracle.create_trial(f"laptop-{number}").trial_id for number in (0, 1)] == ["0", "1"]
    oracle = make(tmp_path, kind, FEW, trials=2, has_workers_elsewhere=True)
    assert oracle.create_trial("pod-0").status == "IDLE"
    for number in (0, 1):
        oracle.give_up(f"laptop-{number}")
    assert not oracle.is_over()
    end(oracle, "1", 0.5)  # the worker was given up too early
    assert drive(oracle) == "STOPPED"
    assert oracle.is_over()
    assert {trial.status for trial in oracle.progress.trials} == {"completed"}
    assert [trial.worker for trial in oracle.progress.trials][:2] == ["worker0", "laptop-1"]


def test_two_trials_of_one_worker_are_both_run(tmp_path):
    """It was given up, came back, and began another trial before the chief was killed."""
    oracle = make(tmp_path, "random", RATES, trials=2)
    oracle.create_trial("pod-0")
    oracle.give_up("pod-0")
    oracle.create_trial("pod-1")
    oracle.create_trial("pod-0")
    trials = [dataclasses.replace(each, worker="pod-0") for each in oracle.progress.trials]
    Progress(tuple(trials)).write(tmp_path)
    oracle = make(tmp_path, "random", RATES, trials=2, has_workers_elsewhere=True)
    assert {oracle.create_trial(f"pod-{number}").trial_id for number in (0, 1)} == {"0", "1"}


def test_a_search_whose_last_worker_is_lost_after_its_trial_is_over(tmp_path):
    oracle = make(tmp_path, "random", RATES, trials=1, has_workers_elsewhere=True)
    oracle.create_trial("pod-0")
    end(oracle, "0", 0.5)
    assert not oracle.is_over()
    oracle.give_up("pod-0")
    assert oracle.is_over()


def test_an_end_that_is_said_twice_counts_once(tmp_path):
    oracle = make(tmp_path, "random", RATES, trials=3)
    trial = oracle.create_trial("worker0")
    for objective in (0.5, None):
        end(oracle, trial.trial_id, objective)
    assert oracle.end_order == ["0"]
    assert noted(oracle, "0").objective == 0.5


def test_failures_in_a_row_end_the_search(tmp_path):
    oracle = make(tmp_path, "random", RATES, trials=30)
    assert drive(oracle, failing=set("34567")) == "STOPPED"
    assert len(oracle.progress.trials) == 8
    assert isinstance(oracle.error, FailedTrialsError)
    assert str(oracle.error) == "5 trials failed in a row, the last: boom"


@pytest.mark.parametrize("seed", range(3))
def test_failures_by_settings_end_no_search_that_has_had_a_success(tmp_path, seed):
    """Half of the space fails, and trial 0 does not."""
    oracle = make(tmp_path, "random", RATES, seed=seed, trials=60)
    drive(
        oracle,
        score=lambda trial: by_rate(trial) if by_rate(trial) < 3e-3 else None,
        by_settings=True,
    )
    assert oracle.error is None
    assert len(oracle.progress.trials) == 60
    assert len([each for each in oracle.progress.trials if each.status == "failed"]) > 20


def test_five_failures_before_any_success_end_the_search(tmp_path):
    oracle = make(tmp_path, "random", RATES, trials=60)
    drive(oracle, score=lambda trial: None, by_settings=True)
    assert str(oracle.error) == "5 trials failed in a row, the last: boom"
    assert len(oracle.progress.trials) == 5


def test_failures_by_settings_hide_no_crashes(tmp_path):
    oracle = make(tmp_path, "random", RATES, trials=60)
    drive(oracle, most=1)
    for number in range(1, 10):
        trial = oracle.create_trial("worker0")
        end(oracle, trial.trial_id, None, by_settings=number % 2 == 0)
    assert isinstance(oracle.error, FailedTrialsError)


def test_a_trial_that_fails_again_does_not_end_a_repaired_search(tmp_path):
    drive(make(tmp_path, "random", RATES, trials=30), failing=set("34567"))
    oracle = make(tmp_path, "random", RATES, trials=8)
    oracle.retry_failed()
    drive(oracle, failing={"3"})
    assert oracle.error is None
    assert {each.trial_id for each in oracle.progress.trials if each.objective is None} == {"3"}


def test_failed_trials_are_run_again_if_asked(tmp_path):
    drive(make(tmp_path, "random", RATES, trials=4), failing={"2"})
    oracle = make(tmp_path, "random", RATES, trials=4)
    assert oracle.create_trial("worker0").status == "STOPPED"
    oracle = make(tmp_path, "random", RATES, trials=4)
    oracle.retry_failed()
    assert oracle.create_trial("worker0").trial_id == "2"
    end(oracle, "2", 0.7)
    assert noted(oracle, "2").objective == 0.7


def test_no_trial_begins_after_the_hours(tmp_path):
    oracle = make(tmp_path, "random", RATES, hours=1e-9)
    assert oracle.create_trial("worker0").status == "STOPPED"
    assert oracle.ended == "max_hours is over, with 0 trials begun"


def test_trials_that_had_begun_end_after_the_hours_too(tmp_path):
    oracle = make(tmp_path, "random", RATES, hours=1)
    for worker in ("worker0", "worker1", "worker2"):
        oracle.create_trial(worker)
    end(oracle, "1", None)
    Progress(oracle.progress.trials, seconds=3600).write(tmp_path)
    oracle = make(tmp_path, "random", RATES, hours=1)
    oracle.retry_failed()  # it has not begun again, and its outcome stays
    assert outcome_file(tmp_path, "1").exists()
    for trial_id in ("0", "2"):
        assert not oracle.is_over()
        assert oracle.create_trial("worker0").trial_id == trial_id
        end(oracle, trial_id, 0.5)
    assert oracle.is_over()
    assert oracle.create_trial("worker0").status == "STOPPED"
    assert oracle.ended == "max_hours is over, with 3 trials begun"


def test_a_trial_of_a_lost_worker_ends_after_the_hours_too(tmp_path):
    oracle = make(tmp_path, "random", RATES, hours=1, has_workers_elsewhere=True)
    oracle.create_trial("one")
    oracle.limits = Limits(None, 0.0)
    assert oracle.create_trial("other").status == "IDLE"
    oracle.give_up("one")
    assert oracle.create_trial("other").trial_id == "0"
    end(oracle, "0", 0.5)
    assert oracle.create_trial("other").status == "STOPPED"
    assert oracle.is_over()


def test_the_time_of_a_session_that_is_killed_is_saved_in_between(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_SAVE_SECONDS", 0.01)
    oracle = make(tmp_path, "random", RATES, hours=1)
    with running._saving(oracle):
        oracle.create_trial("worker0")
        begun = Progress.read(tmp_path).seconds
        deadline = time.monotonic() + 20
        while Progress.read(tmp_path).seconds <= begun and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Progress.read(tmp_path).seconds > begun


def test_the_time_of_earlier_sessions_counts(tmp_path):
    oracle = make(tmp_path, "random", RATES, hours=1)
    drive(oracle, most=1)
    Progress(oracle.progress.trials, seconds=3600).write(tmp_path)
    assert make(tmp_path, "random", RATES, hours=1).create_trial("w").status == "STOPPED"
    assert make(tmp_path, "random", RATES, hours=2).create_trial("w").status == "RUNNING"


def test_more_trials_extend_a_search(tmp_path):
    drive(make(tmp_path / "short", "random", RATES, trials=4))
    oracle = make(tmp_path / "short", "random", RATES, trials=9)
    drive(oracle)
    drive(at_once := make(tmp_path / "at once", "random", RATES, trials=9))
    assert settings_of(oracle) == settings_of(at_once)


def test_bayesian_search_goes_where_it_is_good_and_leaves_where_trials_fail(tmp_path):
    oracle = make(tmp_path, "bayesian", RATES, trials=15)
    drive(oracle, score=lambda trial: 1 - abs(by_rate(trial) - 0.05))
    late = [by_rate(trial) for trial in oracle.progress.trials[8:]]
    assert sum(0.03 < rate < 0.09 for rate in late) >= 3


def test_a_grid_without_end_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="training.learning_rate must have a step to be finite"):
        make(tmp_path, "grid", RATES)


def test_a_disk_that_is_full_leaves_the_trials_as_they_were(tmp_path, monkeypatch):
    oracle = make(tmp_path, "random", RATES, trials=5)
    drive(oracle, most=2)
    before = (tmp_path / "trials.json").read_bytes()

    def fill(self, folder):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "write", fill)
        with pytest.raises(OSError, match="No space left"):
            oracle.create_trial("worker0")
    assert (tmp_path / "trials.json").read_bytes() == before
    assert oracle.create_trial("worker0").trial_id == "2"  # no lock is held
