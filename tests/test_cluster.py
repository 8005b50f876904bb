"""A chief and its workers on the loopback, without trainings."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import trial_works
import yaml
from keras_tuner.src.distribute import oracle_client

from fcnseg.config import Config, override
from fcnseg.errors import OutputError
from pipelines.worker_pool import free_port
from tuning import cluster, signs_of_life
from tuning.cluster import ChiefLostError
from tuning.oracles import ORACLES, Limits
from tuning.signs_of_life import Silence
from tuning.space import SearchSpace
from tuning.space_checks import checked_space
from tuning.trials import BEST_CONFIG_FILE, Outcome, Progress, outcome_file
from tuning.workers import Share, Worker, run_worker

SMALL = override(Config(), {"model.filters": [2, 4]})
RATES = {"training.learning_rate": {"float": [1e-4, 1e-1], "log": True}}
LONGEST = 60  # seconds, on a busy machine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a search, with the address of its chief in the environment."""
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port()))
    monkeypatch.setattr(signs_of_life, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "_SILENT_SECONDS", 2.0)
    (tmp_path / "trials").mkdir()
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    return tmp_path


def unread_oracle(folder, *, trials):
    space = checked_space(SearchSpace.read(folder / "space.yaml"), SMALL)
    limits = Limits(trials)
    return ORACLES["random"](space, SMALL, folder=folder, objective="val_dice", limits=limits)


def oracle_in(folder, *, trials, **resumed):
    oracle = unread_oracle(folder, trials=trials)
    oracle.reload(**resumed)
    return oracle


@contextlib.contextmanager
def chief_of(oracle):
    """Serves until the search is over; gives the thread."""
    should_stop = threading.Event()
    thread = threading.Thread(target=cluster.serve, args=(oracle, should_stop), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        should_stop.set()
        thread.join(LONGEST)


def worker_in(folder, monkeypatch, name, work=trial_works.succeed):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    runner = trial_works.runner_of(work, folder, base=SMALL)
    worker = Worker(oracle_in(folder, trials=1), runner, share=Share())
    worker.oracle.stub = cluster._Stub(worker.oracle.stub, runner.should_stop)
    return worker


def test_the_trial_of_a_worker_that_never_returns_is_run_by_another(folder, monkeypatch):
    """A search on a laptop is continued on a cluster: nobody has the names of its workers."""
    local = oracle_in(folder, trials=3)
    for number in (0, 1):
        local.create_trial(f"worker{number}")
    with chief_of(oracle_in(folder, trials=3, has_workers_elsewhere=True)) as chief:
        worker = worker_in(folder, monkeypatch, "pod-0")
        with signs_of_life.signs_of_life(folder, "pod-0"):
            run_worker(worker)
        chief.join(LONGEST)
        assert not chief.is_alive()
    trials = Progress.read(folder).trials
    assert [(trial.worker, trial.status) for trial in trials] == [("pod-0", "completed")] * 3


def test_a_worker_stops_though_the_chief_is_away(folder, monkeypatch):
    worker = worker_in(folder, monkeypatch, "pod-0")
    thread = threading.Thread(target=run_worker, args=(worker,), daemon=True)
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    began = time.monotonic()
    worker.runner.should_stop.set()
    thread.join(LONGEST)
    assert time.monotonic() - began < 5


def test_a_chief_on_a_full_disk_ends_and_its_workers_wait_for_the_next(folder, monkeypatch):
    def fill(self, folder):
        raise OutputError("cannot write trials.json: No space left on device")

    worker = worker_in(folder, monkeypatch, "pod-0")
    thread = threading.Thread(target=run_worker, args=(worker,), daemon=True)
    oracle = oracle_in(folder, trials=3, has_workers_elsewhere=True)
    thread.start()
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "write", fill)
        with pytest.raises(OutputError, match="No space left"):
            cluster.serve(oracle, threading.Event())
    assert thread.is_alive()
    with chief_of(oracle_in(folder, trials=3, has_workers_elsewhere=True)):
        thread.join(LONGEST)
    assert [trial.status for trial in Progress.read(folder).trials] == ["completed"] * 3


def test_a_chief_that_does_not_answer_is_named(folder, monkeypatch):
    monkeypatch.setattr(oracle_client, "TIMEOUT", 0.5)
    worker = worker_in(folder, monkeypatch, "pod-0")
    with pytest.raises(ChiefLostError, match="the chief does not answer: .*"):
        run_worker(worker)


@pytest.mark.parametrize("name", ["search", "trials", "devices"])
def test_a_worker_may_have_the_name_of_a_file(folder, monkeypatch, name):
    """KerasTuner would take search.json for its own."""
    (folder / f"{name}.json").write_text("{}")
    assert worker_in(folder, monkeypatch, name).tuner_id == name


def test_a_worker_is_silent_from_its_last_sign(folder):
    silence = Silence(folder)
    with signs_of_life.signs_of_life(folder, "pod-0"):
        for _ in range(20):
            assert silence.seconds("pod-0") < 1
            time.sleep(0.1)
    assert silence.seconds("pod-0") < 1  # the very last sign
    assert silence.seconds("nobody") == 0
    time.sleep(1.2)
    assert silence.seconds("pod-0") > 1
    assert silence.seconds("nobody") > 1


def test_a_search_with_new_limits_is_not_over_for_a_worker_that_is_first(folder):
    (folder / "outcomes").mkdir()
    oracle = oracle_in(folder, trials=1)
    trial = oracle.create_trial("w-0")
    Outcome(None, error="boom").write(outcome_file(folder, trial.trial_id))
    oracle.end_trial(trial)
    assert not cluster.has_ended(unread_oracle(folder, trials=1))  # the chief has not said so yet
    (folder / BEST_CONFIG_FILE).write_text("{}")
    assert cluster.has_ended(unread_oracle(folder, trials=1))
    assert not cluster.has_ended(unread_oracle(folder, trials=2))
    assert not cluster.has_ended(unread_oracle(folder, trials=1), retry_failed=True)
