"""The search: what it leaves, what it refuses, and how it goes on after any end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trial_works
import yaml
from small_records import make_record, write_dataset

from fcnseg.cli.command import flag_names, parse, run_command, run_or_exit
from fcnseg.config import Config, override, read_config, write_config
from fcnseg.errors import ConfigError, InputError, OutputError
from fcnseg.networks.keras_compat import IS_KERAS_3
from fcnseg.records import Dataset
from fcnseg.runs.run_folder import CHECKPOINT_FILE, FINAL_STATE_FILE, HISTORY_FILE
from fcnseg.storage.folder_lock import FolderInUseError, locked_folder
from fcnseg.training import read_run, train
from pipelines.worker_pool import free_port
from tuning import cluster, running, worker_devices
from tuning.objectives import check_objective, measure
from tuning.oracles import ORACLES, Limits
from tuning.report import REPORT_FILE
from tuning.search import SearchCommand
from tuning.space import SearchSpace
from tuning.space_checks import checked_space
from tuning.trial_checks import check_trial, devices_of
from tuning.trial_process import TrialJob, run_in_process
from tuning.trials import (
    BEST_CONFIG_FILE,
    Outcome,
    Progress,
    Search,
    Trial,
    begun_file,
    best_trial,
    outcome_file,
)
from tuning.worker_devices import keep_devices, shares
from tuning.workers import Share, Worker, run_threads

ROOT = Path(__file__).parent.parent
SMALL = override(
    Config(),
    {
        "model.filters": [2, 4],
        "patches.size": [8, 8, 8],
        "patches.batch_size": 1,
        "training.epochs": 3,
        "training.steps_per_epoch": 2,
        "training.tensorboard": False,
        "inference.overlap": [0, 0, 0],
    },
)
RATES = {"training.learning_rate": {"float": [1e-4, 1e-1], "log": True}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = {
        split: [[make_record(split, seed=seed)]]
        for seed, split in enumerate(("train", "validation"))
    }
    return write_dataset(tmp_path_factory.mktemp("tuning") / "records", splits)


def write_space(folder, content):
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def command(dataset, folder, *, space=None, config=SMALL, **flags):
    return SearchCommand(
        data=dataset,
        config=config,
        space=write_space(folder, space or RATES),
        output=folder / "search",
        **{"max_trials": 2, **flags},
    )


def trials_in(folder):
    return {trial.trial_id: trial for trial in Progress.read(folder / "search").trials}


# Real trainings.


@pytest.fixture(scope="module")
def of_two_workers(dataset, tmp_path_factory):
    """A search that has ended, with an organ's Dice as its objective."""
    folder = tmp_path_factory.mktemp("two_workers")
    wanted = command(dataset, folder, objective="val_dice_liver", max_trials=2, workers=2)
    wanted.run()
    return wanted


def test_a_search_ends_in_the_configuration_of_its_best_trial(of_two_workers):
    """The second command finds everything done."""
    folder = of_two_workers.output.parent
    trials = trials_in(folder)
    best = best_trial(list(trials.values()), epochs=3)
    assert trials.keys() == {"0", "1"}
    assert best.objective == max(trial.objective for trial in trials.values())
    for trial in trials.values():
        assert 0 < trial.outcome.training_seconds < trial.outcome.seconds
        assert trial.outcome.training_cpu_seconds > 0
    found = read_config(folder / "search" / BEST_CONFIG_FILE)
    assert found == override(SMALL, best.settings)
    run = folder / "search/trials" / best.trial_id
    assert read_run(run).best_dice == best.outcome.val_dice
    assert f"Best so far: trial {best.trial_id}" in (folder / "search" / REPORT_FILE).read_text()
    assert not {CHECKPOINT_FILE, FINAL_STATE_FILE} & {path.name for path in run.iterdir()}
    of_two_workers.run()
    assert trials_in(folder) == trials


def test_an_output_that_cannot_be_printed_loses_no_result(of_two_workers, monkeypatch, capsys):
    path = of_two_workers.output / BEST_CONFIG_FILE
    best = path.read_text()
    path.unlink()
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:  # as a log on a full disk
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            run_or_exit(of_two_workers.run)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(
        "error: No space left on device: standard output, or a file\n"
    )
    assert path.read_text() == best


def assert_repeated(trial, config, dataset, search, again):
    """A training with the configuration of a trial ends in its network."""
    assert train(config, dataset, again).best_dice == trial.outcome.val_dice
    one, other = (read_run(run).weights_sha256 for run in (again, search / "trials" / trial.root))
    assert one == other


@pytest.mark.slow
def test_training_on_all_cores_repeats_a_trial_that_had_its_share(
    of_two_workers, dataset, tmp_path
):
    search = of_two_workers.output
    best = best_trial(list(trials_in(search.parent).values()), epochs=3)
    config = read_config(search / BEST_CONFIG_FILE)
    assert_repeated(best, config, dataset, search, tmp_path / "again")


@pytest.mark.slow
def test_a_trial_whose_checkpoint_is_broken_begins_again(of_two_workers, dataset, tmp_path):
    """The disk had a fault; the trial ends in the network of one that was left alone."""
    job = TrialJob(SMALL, str(dataset), tmp_path / "run", 1, "val_dice_liver", tmp_path / "log")
    run_in_process(job, should_stop=threading.Event())
    checkpoint = tmp_path / "run" / CHECKPOINT_FILE
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    outcome = run_in_process(dataclasses.replace(job, until_epoch=3), should_stop=threading.Event())
    assert "corrupt checkpoint" in (tmp_path / "log").read_text()
    base = trials_in(of_two_workers.output.parent)["0"]
    assert outcome.objective == base.objective
    runs = [read_run(run) for run in (tmp_path / "run", of_two_workers.output / "trials/0")]
    assert runs[0].weights_sha256 == runs[1].weights_sha256


@pytest.mark.slow
def test_an_ignored_organ_is_not_in_the_mean_surface_dice(of_two_workers, dataset, tmp_path):
    run = shutil.copytree(of_two_workers.output / "trials/0", tmp_path / "run")
    result = train(SMALL, dataset, run, resume=True)
    records = Dataset.open(dataset)
    mean, liver, spleen = (
        measure(f"val_surface_dice{organ}", result, records, ignore_label=ignored)
        for organ, ignored in (("", 2), ("_liver", 2), ("_spleen", None))
    )
    assert mean == liver != spleen


@pytest.mark.slow
def test_a_search_by_surface_dice_passes_over_a_network_that_breaks(dataset, tmp_path):
    """It breaks by its learning rate: its loss is not finite."""
    space = {"training.learning_rate": {"choice": [1e30]}}
    command(dataset, tmp_path, space=space, objective="val_surface_dice").run()
    base, broken = trials_in(tmp_path).values()
    assert 0 <= base.objective <= 1
    assert base.objective != base.outcome.val_dice
    assert broken.status == "failed"
    assert re.search("LossError: the loss is|val_surface_dice is nan", broken.outcome.error)
    assert broken.outcome.is_by_settings


def start(folder, dataset, *flags, module=("tuning.search",), **environment):
    """The command in a process of its own."""
    write_config(SMALL, folder / "base.yaml")
    space = write_space(folder, RATES)
    argv = ["--data", dataset, "--config", folder / "base.yaml", "--space", space, *flags]
    with (folder / "stderr.txt").open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", *module, *argv, "--output", folder / "search"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def said(folder):
    return (folder / "stderr.txt").read_text()


def wait_for(path, process, *, seconds=600):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, path
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def results(folder):
    return {
        trial.trial_id: (trial.settings, trial.until_epoch, trial.objective)
        for trial in Progress.read(folder / "search").trials
    }


HYPERBAND = ("--tuner", "hyperband", "--max_trials", "4")


@pytest.fixture(scope="module")
def left_alone(dataset, tmp_path_factory):
    """The folder of a search that nothing has disturbed, in which trials are promoted."""
    folder = tmp_path_factory.mktemp("alone")
    assert start(folder, dataset, *HYPERBAND).wait() == 0, said(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_at_once_repeats_a_promoted_trial(left_alone, dataset, tmp_path):
    promoted = [trial for trial in trials_in(left_alone).values() if trial.rung]
    best = best_trial(promoted, epochs=3)
    config = override(SMALL, best.settings)
    assert_repeated(best, config, dataset, left_alone / "search", tmp_path / "again")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_killed_at_random_moments_ends_as_one_left_alone(left_alone, dataset, tmp_path):
    """`FCNSEG_KILLS` kills, 1 by default; `benchmarks/bench_search.py` has more, of each tuner."""
    for _ in range(int(os.environ.get("FCNSEG_KILLS", "1"))):
        process = start(tmp_path, dataset, *HYPERBAND)
        wait_for(tmp_path / "search/trials.json", process)
        time.sleep(random.uniform(0, 20))
        process.kill()
        process.wait()
        if (tmp_path / "search" / BEST_CONFIG_FILE).exists():
            break
    assert start(tmp_path, dataset, *HYPERBAND).wait() == 0, said(tmp_path)
    assert results(tmp_path) == results(left_alone)
    best = [read_config(folder / "search" / BEST_CONFIG_FILE) for folder in (left_alone, tmp_path)]
    assert best[0] == best[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigterm_ends_the_search_with_a_line_and_its_trial_goes_on(dataset, tmp_path):
    """Slurm and systemd send it to the trial too, and to the server of its process: the second."""
    flags = ["--max_trials", "2", "--training.epochs", "1000000"]
    log = tmp_path / "search/logs/0.log"
    for is_for_all in (False, True):
        process = start(tmp_path, dataset, *flags)
        wait_for(tmp_path / "search/trials/0" / HISTORY_FILE, process)
        while is_for_all and "resumes after step" not in log.read_text():
            assert process.poll() is None, said(tmp_path)
            time.sleep(0.1)
        if is_for_all:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        assert process.wait(timeout=300) == 143
        last = said(tmp_path).splitlines()[-1]
        assert last.startswith("error: search stopped by SIGTERM: 0 trials finished, written to")
        assert "Traceback" not in said(tmp_path)
        (trial,) = Progress.read(tmp_path / "search").trials
        assert trial.status == "running"
        assert (tmp_path / "search/trials/0" / CHECKPOINT_FILE).exists()
    assert not (tmp_path / "search/trials/1").exists()


def chief_address():
    """The environment by which a chief and its workers find each other on this machine."""
    return {
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(free_port()),
    }


def wait_for_a_trial_of(worker, folder, *, seconds=900):
    deadline = time.monotonic() + seconds
    while worker not in {trial.worker for trial in trials_in(folder).values()}:
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_supervisor_starts_a_worker_of_a_search_again(dataset, tmp_path):
    """A chief, and two workers on one machine, one of which is killed; its trial resumes."""
    address = chief_address()
    module = ["tuning.supervisor", "--workers", "2", "--name", "here"]
    module += ["--", sys.executable, "-m", "tuning.search"]
    chief = start(tmp_path, dataset, "--max_trials", "3", KERASTUNER_TUNER_ID="chief", **address)
    supervisor = start(tmp_path, dataset, "--max_trials", "3", module=module, **address)
    wait_for_a_trial_of("here-1", tmp_path)
    os.kill(worker_under(supervisor.pid, "here-1"), signal.SIGKILL)
    assert [process.wait() for process in (chief, supervisor)] == [0, 0], said(tmp_path)
    assert "worker here-1 ended with status -9; it starts again in 1 s" in said(tmp_path)
    trials = trials_in(tmp_path)
    assert trials.keys() == {"0", "1", "2"}
    assert {trial.status for trial in trials.values()} == {"completed"}
    assert {trial.worker for trial in trials.values()} <= {"here-0", "here-1"}
    assert (tmp_path / "search" / BEST_CONFIG_FILE).exists()


def worker_under(supervisor, name):
    """The process that a supervisor has started under a name."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            variables = (folder / "environ").read_text().split("\0")
            if int(parent) == supervisor and f"KERASTUNER_TUNER_ID={name}" in variables:
                return int(folder.name)
    raise AssertionError(name)


# Workers, without trainings.


def workers_in(folder, work, count, *, trials, share=None):
    runner = trial_works.runner_of(work, folder, base=SMALL)
    space = checked_space(SearchSpace.read(write_space(folder, RATES)), SMALL)
    oracle = ORACLES["random"](
        space, SMALL, folder=folder, objective="val_dice", limits=Limits(trials)
    )
    oracle.reload()
    made = [Worker(oracle, runner, share=share or Share()) for _ in range(count)]
    for number, worker in enumerate(made):
        worker.tuner_id = f"worker{number}"
    return oracle, made


def resident_bytes():
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) * 1024


def test_crashes_are_failed_trials_and_the_search_goes_on(tmp_path):
    oracle, workers = workers_in(tmp_path, trial_works.crash_at_some_rates, 2, trials=12)
    run_threads(workers)
    trials = Progress.read(tmp_path).trials
    assert len(trials) == 12
    for trial in trials:
        rate = trial.settings.get("training.learning_rate", SMALL.training.learning_rate)
        assert trial.status == ("failed" if rate < 1e-3 else "completed")
        if rate < 1e-3:
            assert "ended by SIGSEGV" in trial.outcome.error
    assert {trial.worker for trial in trials} == {"worker0", "worker1"}
    assert oracle.ended == "all 12 trials of max_trials are tried"


def test_the_memory_of_the_search_is_flat(tmp_path):
    for folder, trials in ((tmp_path / "warm", 5), (tmp_path / "more", 20)):
        folder.mkdir()
        _, workers = workers_in(folder, trial_works.succeed, 1, trials=trials)
        before = resident_bytes()
        run_threads(workers)
    assert resident_bytes() - before < 5 * 2**20


def test_an_outcome_that_a_killed_worker_left_is_taken(tmp_path):
    """It was written before the search heard of it."""
    _, (worker,) = workers_in(tmp_path, trial_works.be_killed, 1, trials=1)
    Outcome(0.25).write(outcome_file(tmp_path, "0"))
    run_threads([worker])
    (trial,) = Progress.read(tmp_path).trials
    assert trial.objective == 0.25


@pytest.mark.parametrize(("memory_bytes", "is_kept"), [(None, True), (1000, False)])
def test_a_trial_that_crashed_keeps_its_checkpoint_for_a_repair(tmp_path, memory_bytes, is_kept):
    """One that failed by its settings does not."""
    share = Share(memory_bytes=memory_bytes)
    _, (worker,) = workers_in(tmp_path, trial_works.exit_with_3, 1, trials=1, share=share)
    checkpoint = tmp_path / "trials/0" / CHECKPOINT_FILE
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    run_threads([worker])
    assert Progress.read(tmp_path).trials[0].status == "failed"
    assert checkpoint.exists() == is_kept


@pytest.mark.parametrize(
    ("deaths", "has_checkpoint", "error"),
    [
        (2, False, None),
        (3, False, "its worker died 3 times"),
        (3, True, None),
    ],
)
def test_a_trial_that_takes_its_worker_down_is_not_run_for_ever(
    tmp_path, deaths, has_checkpoint, error
):
    """Such as one that needs more memory than its container has."""
    _, (worker,) = workers_in(tmp_path, trial_works.succeed, 1, trials=1)
    begun = begun_file(tmp_path, "0")
    begun.write_text("begun\n" * deaths)
    if has_checkpoint:
        checkpoint = tmp_path / "trials/0" / CHECKPOINT_FILE
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        os.utime(begun, (0, 0))
    run_threads([worker])
    (trial,) = Progress.read(tmp_path).trials
    assert trial.outcome.error == error
    assert not begun.exists()


MACHINE = """
import sys, pathlib
sys.path.insert(0, "tests")
import test_tuning, trial_works
from tuning.workers import run_threads
run_threads(test_tuning.workers_in(pathlib.Path(sys.argv[1]), trial_works.end_all, 1, trials=1)[1])
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trial_that_takes_its_machine_down_fails_after_three_times(tmp_path):
    """SIGKILL for a session stands for that of a container; there were two before."""
    begun = begun_file(tmp_path, "0")
    begun.parent.mkdir()
    begun.write_text("begun\n" * 2)
    for status in (-9, 0):
        command = [sys.executable, "-c", MACHINE, tmp_path]
        assert subprocess.run(command, cwd=ROOT, start_new_session=True).returncode == status
    (trial,) = Progress.read(tmp_path).trials
    assert trial.outcome.error == "its worker died 3 times"


def test_a_full_disk_ends_the_search_and_its_trial_is_run_again(tmp_path):
    _, workers = workers_in(tmp_path, trial_works.fill_the_disk, 2, trials=4)
    with pytest.raises(Exception, match="trial . cannot go on: .*No space left on device"):
        run_threads(workers)
    assert {trial.status for trial in Progress.read(tmp_path).trials} == {"running"}
    _, workers = workers_in(tmp_path, trial_works.succeed, 2, trials=4)
    run_threads(workers)
    trials = Progress.read(tmp_path).trials
    assert [trial.status for trial in trials] == ["completed"] * 4


def test_a_hopeless_trial_is_refused_before_it_starts(tmp_path):
    _, workers = workers_in(
        tmp_path, trial_works.be_killed, 1, trials=1, share=Share(memory_bytes=1000)
    )
    run_threads(workers)
    (trial,) = Progress.read(tmp_path).trials
    assert re.fullmatch(
        r"it needs about 0\.\d GiB of memory, of 0\.0 GiB that there are", trial.outcome.error
    )
    assert trial.outcome.is_by_settings


@pytest.mark.parametrize(
    ("workers", "devices", "gpus", "expected"),
    [
        (1, (), 0, [None]),
        (2, (), 4, [("0", "2"), ("1", "3")]),
        (2, (), 3, [("0",), ("1",)]),
        (2, ("GPU:1", "gpu:3"), 4, [("1",), ("3",)]),
        (1, ("2",), 4, [("0", "1")]),
    ],
)
def test_gpus_are_shared_out(monkeypatch, workers, devices, gpus, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    listed = [object()] * gpus
    monkeypatch.setattr(worker_devices.tf.config, "list_physical_devices", lambda kind: listed)
    assert [share.gpus for share in shares(workers, devices)] == expected


def test_the_gpus_that_are_visible_are_those_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr(
        worker_devices.tf.config, "list_physical_devices", lambda kind: [object()] * 2
    )
    assert [share.gpus for share in shares(2)] == [("5",), ("7",)]


def test_cores_are_shared_out():
    cores = sorted(os.sched_getaffinity(0))
    found = shares(len(cores))
    shared = sorted(core for share in found for core in share.cores)
    assert shared == (cores if len(cores) > 1 else [])
    assert {share.cores for share in shares(len(cores) + 1)} == {()}


@pytest.mark.parametrize(
    ("workers", "devices", "message"),
    [
        (0, (), "workers must be at least 1, got 0"),
        (3, (), "workers must be at most the 2 GPUs, got 3"),
        (1, ("GPU:2",), "devices must be a number or names of the GPUs GPU:0, GPU:1, got GPU:2"),
        (1, ("3",), "devices must be a number or names of the GPUs GPU:0, GPU:1, got 3"),
        (1, ("GPU:0", "GPU:0"), "got GPU:0 GPU:0"),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, workers, devices, message):
    monkeypatch.setattr(
        worker_devices.tf.config, "list_physical_devices", lambda kind: [object()] * 2
    )
    with pytest.raises(InputError, match=message):
        shares(workers, devices)


# What is refused.

BEGUN = Search(
    tuner="random",
    objective="val_dice",
    seed=0,
    space=RATES,
    config=SMALL,
    data="records",
    data_digest="0" * 64,
)


def begin(wanted, dataset):
    """The folder of a search that has had no trial yet."""
    space = checked_space(SearchSpace.read(wanted.space), wanted.config)
    Search(
        tuner=wanted.tuner,
        objective=wanted.objective,
        seed=wanted.seed,
        space=space.to_mapping(),
        config=wanted.config,
        data=str(dataset),
        data_digest=Dataset.open(dataset).digest,
    ).begin_or_resume(wanted.output)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"config": override(SMALL, {"training.learning_rate": 0.5})},
            r"config\.training\.learning_rate was 0\.001, got 0\.5",
        ),
        (
            {"space": {"training.learning_rate": {"float": [1e-4, 0.2], "log": True}}},
            r"space\.training\.learning_rate\.float was .*0\.1.*, got .*0\.2",
        ),
        ({"tuner": "bayesian"}, "tuner was random, got bayesian"),
        ({"objective": "val_dice_liver"}, "objective was val_dice, got val_dice_liver"),
        ({"seed": 1}, "seed was 0, got 1"),
    ],
)
def test_a_search_that_began_with_something_else_is_refused(dataset, tmp_path, changes, message):
    begin(command(dataset, tmp_path), dataset)
    with pytest.raises(InputError, match=f"what the search in .*search began with: {message}"):
        command(dataset, tmp_path, **changes).run()


@pytest.mark.parametrize(("max_trials", "is_kept"), [(1, True), (2, False)])
def test_the_best_configuration_of_a_search_that_is_over_is_never_missing(
    dataset, tmp_path, monkeypatch, max_trials, is_kept
):
    """A chief that is started again and again finds the search over."""
    begin(wanted := command(dataset, tmp_path, max_trials=max_trials), dataset)
    trial = Trial("0", {}, None, 3, began="2026-01-01T00:00:00+00:00").ended_with(Outcome(0.5))
    Progress((trial,)).write(wanted.output)
    best = wanted.output / BEST_CONFIG_FILE
    best.touch()
    kept = []
    monkeypatch.setattr(running, "run_threads", lambda workers: kept.append(best.exists()))
    wanted.run()
    assert kept == [is_kept]
    assert best.read_text()


def test_trials_on_more_or_fewer_gpus_are_refused(dataset, tmp_path):
    """A batch is per GPU; a core counts as one."""
    wanted = command(dataset, tmp_path)
    begin(wanted, dataset)
    for gpus in (("0", "1"), ("2", "3")):
        keep_devices(wanted.output, Share(gpus=gpus))
    with pytest.raises(InputError, match="must leave each trial 2 GPUs, .* had, got 1"):
        wanted.run()
    (wanted.output / "devices.json").unlink()
    for share in (Share(gpus=("3",)), Share()):
        keep_devices(wanted.output, share)


def test_an_objective_of_an_organ_in_no_validation_case_is_refused(dataset):
    info = Dataset.open(dataset).info
    validation = dataclasses.replace(info.splits["validation"], class_histogram=(9, 9, 0))
    without = dataclasses.replace(info, splits={**info.splits, "validation": validation})
    liver, spleen = info.class_names[1:]
    for name in ("val_dice", "val_surface_dice", f"val_dice_{liver}"):
        check_objective(name, without)
    for name in (f"val_dice_{spleen}", f"val_surface_dice_{spleen}"):
        with pytest.raises(InputError, match=f"a validation case, got {name}: {spleen} is in none"):
            check_objective(name, without)
    for ignored in (None, 0, 1, 3):  # an index beyond the classes is that of a label map
        check_objective(f"val_dice_{spleen}", info, ignore_label=ignored)
    with pytest.raises(InputError, match=f"must be one of val_dice, val_dice_{spleen}, .* got val"):
        check_objective(f"val_dice_{liver}", info, ignore_label=1)


def test_a_search_on_other_records_is_refused(dataset, tmp_path):
    wanted = command(dataset, tmp_path)
    begin(wanted, dataset)
    splits = {name: [[make_record(name, seed=9)]] for name in ("train", "validation")}
    other = write_dataset(tmp_path / "other", splits)
    with pytest.raises(InputError, match="began with: data_digest was [0-9a-f]{64}, got "):
        dataclasses.replace(wanted, data=other).run()


def test_a_second_search_in_a_folder_is_refused(dataset, tmp_path):
    (tmp_path / "search").mkdir()
    with (
        locked_folder(tmp_path / "search", argument="output"),
        pytest.raises(FolderInUseError, match="output must not be in use, got .*search, which"),
    ):
        command(dataset, tmp_path).run()


def test_a_folder_of_something_else_is_refused(dataset, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "thesis.txt").touch()
    with pytest.raises(InputError, match="new or empty folder, or a search, got .*search"):
        command(dataset, tmp_path).run()


def test_a_search_whose_first_file_did_not_fit_on_the_disk_begins_again(tmp_path, monkeypatch):
    def fill(path, text):
        raise OutputError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tuning.trials.write_whole", fill)
        with pytest.raises(OutputError, match="No space left on device"):
            BEGUN.begin_or_resume(tmp_path / "search")
    BEGUN.begin_or_resume(tmp_path / "search")
    assert Search.read(tmp_path / "search") == BEGUN


def test_a_space_whose_keys_are_in_another_order_is_another_one(tmp_path):
    """It draws other settings: each key has the next draw."""
    space = {**RATES, "model.dropout": {"choice": [0.0, 0.1]}}
    dataclasses.replace(BEGUN, space=space).begin_or_resume(tmp_path)
    other = dataclasses.replace(BEGUN, space=dict(reversed(space.items())))
    with pytest.raises(
        InputError,
        match=(
            "began with: order of keys was training.learning_rate, model.dropout,"
            " got model.dropout, training.learning_rate$"
        ),
    ):
        other.begin_or_resume(tmp_path)
    dataclasses.replace(BEGUN, space=space).begin_or_resume(tmp_path)


@pytest.mark.parametrize("name", ["trials", "outcomes", "logs"])
def test_a_folder_of_a_search_that_is_missing_is_made_again(tmp_path, name):
    """The command was killed before it made it, or somebody has cleared the logs."""
    BEGUN.begin_or_resume(tmp_path)
    (tmp_path / name).rmdir()
    BEGUN.begin_or_resume(tmp_path)
    assert (tmp_path / name).is_dir()


def test_a_list_of_trials_that_is_broken_is_named(dataset, tmp_path):
    wanted = command(dataset, tmp_path)
    begin(wanted, dataset)
    (tmp_path / "search/trials.json").write_bytes(b"")
    with pytest.raises(InputError, match=r"trials\.json is incomplete or corrupt"):
        wanted.run()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_trials": 0}, "max_trials must be at least 1, got 0"),
        ({"max_hours": 0.0}, "max_hours must be above 0, got 0.0"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"seed": 2**32, "tuner": "bayesian"}, "seed must be from 0 to 4294967295, got 4294967296"),
        ({"max_trials": None}, "max_trials or max_hours must be given for tuner random"),
        (
            {"objective": "val_dice_livr"},
            "got val_dice_livr; did you mean val_dice_liver",
        ),
        ({"tuner": "grid"}, "training.learning_rate must have a step to be finite"),
        (
            {"tuner": "hyperband", "config": override(SMALL, {"training.validate_every": 2})},
            "tuner hyperband must have at least 3 validations to stop trials at, got 2",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(dataset, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        command(dataset, tmp_path, **flags).run()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("key", "right", "wrong", "rule"),
    [
        pytest.param(
            *("training.optimizer", "adam", "radam", "optimizer radam is in tensorflow-addons"),
            marks=pytest.mark.skipif(not IS_KERAS_3, reason="tensorflow-addons has it"),
        ),
        (
            *("training.precision", "float32", "mixed_float16"),
            "must be float32 or mixed_bfloat16 on a CPU",
        ),
        ("loss.class_weights", "uniform", [1.0, 1.0], "loss.class_weights must be 3 numbers, for"),
    ],
)
def test_what_no_training_here_takes_is_refused_before_any_trial(
    dataset, tmp_path, key, right, wrong, rule
):
    """In the base configuration, and as a value of the space."""
    base = override(SMALL, {key: wrong})
    with pytest.raises(ConfigError, match=f"^(?!.*breaks a rule).*{rule}"):
        command(dataset, tmp_path, config=base).run()
    space = {key: {"choice": [right, wrong]}}
    with pytest.raises(
        ConfigError, match=rf"^{key}={re.escape(str(wrong))} breaks a rule: .*{rule}"
    ):
        command(dataset, tmp_path, space=space).run()
    assert not (tmp_path / "search").exists()


def test_the_devices_of_workers_are_those_that_trials_are_checked_for(dataset):
    """A chief does not know them."""
    info = Dataset.open(dataset).info
    half = override(SMALL, {"training.precision": "mixed_float16"})
    compiled = override(SMALL, {"training.jit_compile": True})
    assert devices_of(Share()) == ["CPU:0"]
    assert devices_of(Share(gpus=("5", "7"))) == ["GPU:0", "GPU:1"]
    check_trial(half, info)
    check_trial(half, info, devices=["GPU:0"])
    check_trial(compiled, info, devices=["GPU:0"])
    with pytest.raises(ConfigError, match="jit_compile is for one device, got 2"):
        check_trial(compiled, info, devices=["GPU:0", "GPU:1"])


def test_command_ends_with_a_line(tmp_path, capsys):
    space = write_space(tmp_path, RATES)
    flags = ["--data", str(tmp_path / "nowhere"), "--config", "demo", "--space", str(space)]
    with pytest.raises(SystemExit) as caught:
        run_command(SearchCommand, [*flags, "--max_trials", "1", "--output", str(tmp_path / "s")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"error: no such folder of records: {tmp_path}/nowhere\n"
    )


def test_flags_override_the_configuration(tmp_path):
    write_config(SMALL, tmp_path / "base.yaml")
    argv = f"--data d --config {tmp_path}/base.yaml --space s --max_trials 3 --output o"
    parsed = parse(SearchCommand, [*argv.split(), "--training.epochs", "7"])
    assert parsed.config == override(SMALL, {"training.epochs": 7})


# A cluster.

MORTAL = """
import os, pathlib, sys
born = pathlib.Path(sys.argv[1]) / os.environ["KERASTUNER_TUNER_ID"]
if not born.exists():
    born.write_text(os.environ["FCNSEG_WORKER_NUMBER"] + "/" + os.environ["FCNSEG_WORKER_COUNT"])
    os.kill(os.getpid(), 9)
sys.exit(int(sys.argv[2]))
"""


def supervise(folder, *, status=0):
    return subprocess.run(
        [
            *(sys.executable, "-m", "tuning.supervisor", "--workers", "2", "--name", "here"),
            *("--", sys.executable, "-c", MORTAL, str(folder), str(status)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "1"},
        check=False,
    )


def test_a_supervisor_starts_dead_workers_again_under_their_names(tmp_path):
    done = supervise(tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {"here-0": "0/2", "here-1": "1/2"}
    assert "worker here-0 ended with status -9; it starts again in 1 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_supervisor_stops_its_workers_and_waits_for_them(tmp_path, number):
    slow = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(1), sys.exit(143)))"
    code = f"{slow}; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tuning.supervisor", "--workers", "1", "--name", "here"),
            *("--", sys.executable, "-c", code),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "1"},
    ) as supervisor:
        assert supervisor.stdout.readline() == "up\n"
        worker = worker_under(supervisor.pid, "here-0")
        supervisor.send_signal(number)
        assert supervisor.wait(timeout=60) == 128 + number
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_a_mistake_is_not_repeated(tmp_path):
    done = supervise(tmp_path, status=2)
    assert done.returncode == 2
    assert "worker here-0, here-1 ended with status 2" in done.stderr


def test_a_worker_has_its_share_of_the_machine(dataset, tmp_path, monkeypatch):
    """Of two workers under a supervisor, this is the second."""
    begin(wanted := command(dataset, tmp_path), dataset)
    given = []
    monkeypatch.setattr(cluster, "work", lambda *args, **_: given.append(args[-1]))
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "here-1")
    monkeypatch.setenv("FCNSEG_WORKER_NUMBER", "1")
    monkeypatch.setenv("FCNSEG_WORKER_COUNT", "2")
    wanted.run()
    assert given == [shares(2)[1]] != [shares(1)[0]]
    with pytest.raises(InputError, match="workers must be 1 in a search on several machines, got"):
        dataclasses.replace(wanted, workers=2).run()


def test_the_deployment_gives_flags_of_the_command():
    parts = {
        part["kind"]: part
        for part in yaml.safe_load_all((ROOT / "tuning/k8s/search.yaml").read_text())
    }
    assert parts.keys() == {"ConfigMap", "Service", "Deployment", "Job"}
    flags = re.findall(r"--\w+", parts["ConfigMap"]["data"]["flags"])
    assert flags
    assert set(flags) <= set(flag_names(SearchCommand))
    job = parts["Job"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert "backoffLimitPerIndex" in job
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else the API refuses the former
    names = json.dumps(job)
    assert "KERASTUNER_TUNER_ID" in names
