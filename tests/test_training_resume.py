"""A run that is stopped, killed and taken up again ends as one that was left alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from small_records import make_record, write_dataset
from small_runs import ALL_STATE, assert_same_runs, stop_after

from fcnseg.config import override, read_config
from fcnseg.errors import InputError, OutputError
from fcnseg.inference import load_run
from fcnseg.runs.run_folder import CHECKPOINT_FILE, CONFIG_FILE, FINAL_STATE_FILE
from fcnseg.storage.folder_lock import FolderInUseError, locked_folder
from fcnseg.training import TrainingStoppedError, assembly, loop, read_run, train
from fcnseg.training.callbacks import HistoryFile, KeepBest, Validation
from fcnseg.training.checkpoints import Checkpoints, RunProgress
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.preemption import StopRequest
from fcnseg.training.step import TrainingStep, make_steps


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory):
    return train(ALL_STATE, dataset, tmp_path_factory.mktemp("runs") / "run").run_dir


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(2, marks=pytest.mark.slow, id="first epoch"),
        pytest.param(4, marks=pytest.mark.slow, id="last of an epoch"),
        pytest.param(7, id="second epoch"),
    ],
)
def test_stopped_run_goes_on_as_if_nothing_had_happened(
    dataset, undisturbed, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(TrainingStoppedError, match="stopped by SIGTERM; --resume continues"):
            train(ALL_STATE, dataset, tmp_path / "run")
    with np.load(tmp_path / "run" / CHECKPOINT_FILE) as arrays:
        assert f'"step": {step},' in arrays["progress"].item()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    result = train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    assert_same_runs(undisturbed, tmp_path / "run")
    assert len(result.history["loss"]) == len(result.history["val_dice"]) == 2
    assert {path.name for path in undisturbed.iterdir()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({"training.validate_every": 2, "training.epochs": 4}, [1, 2]),
        ({"training.patience": 1, "training.epochs": 4, "training.learning_rate": 1e-9}, [1, 3]),
    ],
    ids=["between validations and after one", "early stopping"],
)
def test_run_that_stops_after_an_epoch_goes_on_as_if_it_had_not(dataset, tmp_path, changes, stops):
    config = override(ALL_STATE, changes)
    at_once = train(config, dataset, tmp_path / "at once")
    for epoch in stops:
        result = train(config, dataset, tmp_path / "run", resume=True, until_epoch=epoch)
        assert len(result.history["loss"]) == min(epoch, len(at_once.history["loss"]))
    result = train(config, dataset, tmp_path / "run", resume=True)
    assert result == dataclasses.replace(at_once, run_dir=tmp_path / "run")
    assert_same_runs(tmp_path / "at once", tmp_path / "run")


@pytest.mark.slow
def test_run_stopped_after_an_epoch_is_unfinished(dataset, tmp_path):
    config = override(ALL_STATE, {"training.validate_every": 2})
    result = train(config, dataset, tmp_path / "run", until_epoch=1)
    assert (result.best_dice, result.best_epoch) == (-np.inf, 0)
    assert not (tmp_path / "run" / "run.json").exists()
    with np.load(tmp_path / "run" / CHECKPOINT_FILE) as arrays:
        assert '"step": 4,' in arrays["progress"].item()
    train(config, dataset, tmp_path / "run", resume=True, until_epoch=1)  # nothing is left to do
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 2
    train(config, dataset, tmp_path / "run", resume=True, until_epoch=9)
    assert read_run(tmp_path / "run").best_epoch == 2
    with pytest.raises(InputError, match="until_epoch must be at least 1, got 0"):
        train(config, dataset, tmp_path / "run", resume=True, until_epoch=0)


LATE = override(ALL_STATE, {"training.epochs": 4, "training.time_limit_hours": 1})


def slow_down(patch, *, seconds):
    """Adds seconds to what each step takes."""
    advance = TrainingLoop._advance

    def advance_more(self, started, **changes):
        advance(self, started - seconds * ("step" in changes), **changes)

    patch.setattr(TrainingLoop, "_advance", advance_more)


@pytest.fixture(scope="module")
def late(dataset, tmp_path_factory):
    """A run whose time is over in the second epoch, after five steps of four an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        slow_down(patch, seconds=720)
        run = tmp_path_factory.mktemp("runs") / "run"
        assert len(train(LATE, dataset, run).history["loss"]) == 2
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 8], ids=["in an epoch", "last of an epoch"])
def test_run_stopped_when_its_time_is_over_finishes_its_epoch(
    dataset, late, tmp_path, monkeypatch, step
):
    slow_down(monkeypatch, seconds=720)
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(TrainingStoppedError):
            train(LATE, dataset, tmp_path / "run")
    train(LATE, dataset, tmp_path / "run", resume=True)
    assert_same_runs(late, tmp_path / "run")


class KilledError(BaseException):
    """Stands for the end of the process, which nothing catches."""


@pytest.mark.slow
def test_run_killed_at_its_end_has_the_epoch_of_its_best_network(dataset, tmp_path, monkeypatch):
    """The time is over only with the last step, which would be faster if it were repeated."""
    config = override(LATE, {"training.validate_every": 3})
    add_row = HistoryFile.on_epoch_end

    def die(self, epoch, logs=None):
        if epoch == 1:
            raise KilledError
        add_row(self, epoch, logs)

    with monkeypatch.context() as patch:
        slow_down(patch, seconds=450)
        patch.setattr(HistoryFile, "on_epoch_end", die)
        with pytest.raises(KilledError):
            train(config, dataset, tmp_path / "run")
    assert (tmp_path / "run" / "best.keras").exists()
    result = train(config, dataset, tmp_path / "run", resume=True)
    assert len(result.history["loss"]) == result.best_epoch == 2


@pytest.mark.slow
def test_state_of_a_run_that_is_not_to_be_extended_is_deleted(dataset, tmp_path):
    train(ALL_STATE, dataset, tmp_path / "run", keep_final_state=False)
    assert not {CHECKPOINT_FILE, FINAL_STATE_FILE} & {p.name for p in (tmp_path / "run").iterdir()}
    assert read_run(tmp_path / "run").best_epoch


def test_run_in_use_is_refused(dataset, tmp_path):
    (tmp_path / "run").mkdir()
    with (
        locked_folder(tmp_path / "run", argument="run_dir"),
        pytest.raises(FolderInUseError, match="run_dir must not be in use, got .*run, which"),
    ):
        train(ALL_STATE, dataset, tmp_path / "run")


def test_ctrl_c_stops_a_run_as_sigterm_does(dataset, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, number=signal.SIGINT)
        with pytest.raises(TrainingStoppedError, match="stopped by SIGINT; --resume") as caught:
            train(ALL_STATE, dataset, tmp_path / "run")
    assert caught.value.exit_status == 130
    assert signal.getsignal(signal.SIGINT) is before
    with np.load(tmp_path / "run" / CHECKPOINT_FILE) as arrays:
        assert '"step": 2,' in arrays["progress"].item()


@pytest.mark.slow
def test_a_finished_run_is_extended_as_if_it_had_been_longer(dataset, tmp_path):
    """With a constant learning rate the schedule is the same; one may be killed at its end."""
    shorter = override(ALL_STATE, {"training.schedule": "constant", "training.warmup_steps": 0})
    longer = override(shorter, {"training.epochs": 3})
    train(longer, dataset, tmp_path / "at once")
    train(shorter, dataset, tmp_path / "run")
    killed = shutil.copytree(tmp_path / "run", tmp_path / "killed")
    (killed / FINAL_STATE_FILE).rename(killed / CHECKPOINT_FILE)
    for run in (tmp_path / "run", killed):
        result = train(longer, dataset, run, resume=True)
        assert len(result.history["loss"]) == 3
        assert_same_runs(tmp_path / "at once", run)
        assert read_config(run / CONFIG_FILE) == longer
        assert not (run / CHECKPOINT_FILE).exists()


def test_only_more_epochs_extend_a_finished_run(dataset, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    fewer = override(ALL_STATE, {"training.epochs": 1})
    with pytest.raises(InputError, match=r"training\.epochs was 2, got 1"):
        train(fewer, dataset, tmp_path / "run", resume=True)
    more = override(ALL_STATE, {"training.epochs": 3})
    with pytest.raises(InputError, match=r"training\.learning_rate was 0\.01, got 0\.02"):
        train(
            override(more, {"training.learning_rate": 0.02}), dataset, tmp_path / "run", resume=True
        )
    (tmp_path / "run" / FINAL_STATE_FILE).unlink()
    with pytest.raises(InputError, match=r"epochs must be 2, .* final_state\.npz is missing"):
        train(more, dataset, tmp_path / "run", resume=True)
    assert train(ALL_STATE, dataset, tmp_path / "run", resume=True).best_epoch


def test_a_second_ctrl_c_ends_a_run_at_once():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(TrainingStoppedError):
        stop.check()


@pytest.mark.slow
@pytest.mark.parametrize("most", [2, 50])
def test_several_steps_in_a_call_change_nothing(dataset, undisturbed, tmp_path, monkeypatch, most):
    """Two epochs of four steps, and a checkpoint every three: calls end there too."""
    config = override(ALL_STATE, {"training.steps_per_execution": most})
    lengths, graphs = [], []

    class Counted(TrainingStep):
        def on_replica(self, batch):
            graphs.append(1)
            return super().on_replica(batch)

    def counting(step, average):
        counted = Counted(step.model, step.augmentation, step.micro_batches, step.clip_norm)
        do_steps = make_steps(counted, average)

        def do_and_count(*args):
            logs, done = do_steps(*args)
            lengths.append((done, len(graphs)))
            return logs, done

        return do_and_count

    monkeypatch.setattr(loop, "make_steps", counting)
    train(config, dataset, tmp_path / "run")
    assert_same_runs(undisturbed, tmp_path / "run")
    assert [done for done, _ in lengths] == ([2, 1, 1, 2, 2] if most == 2 else [3, 1, 2, 2])
    assert {built for _, built in lengths} == {1}  # one graph for calls of any length


@pytest.mark.slow
def test_run_of_several_steps_in_a_call_stops_after_the_call(
    dataset, undisturbed, tmp_path, monkeypatch
):
    config = override(ALL_STATE, {"training.steps_per_execution": 2})
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(TrainingStoppedError):
            train(config, dataset, tmp_path / "run")
    with np.load(tmp_path / "run" / CHECKPOINT_FILE) as arrays:
        assert '"step": 6,' in arrays["progress"].item()
    train(config, dataset, tmp_path / "run", resume=True)
    assert_same_runs(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_run_stopped_while_it_validates_validates_again(
    dataset, undisturbed, tmp_path, monkeypatch
):
    on_epoch_end = Validation.on_epoch_end

    def signal_and_validate(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        on_epoch_end(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "on_epoch_end", signal_and_validate)
        with pytest.raises(TrainingStoppedError):
            train(ALL_STATE, dataset, tmp_path / "run")
    train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    assert_same_runs(undisturbed, tmp_path / "run")


def test_run_that_died_goes_on_from_its_last_checkpoint(
    dataset, undisturbed, tmp_path, monkeypatch
):
    """It dies after the best network and the row of the second epoch, which are done again."""

    def die(self, progress):
        save(self, progress)
        if progress.step == 6:
            shutil.copy(self.path, tmp_path / "at_step_6.npz")

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", die)
        train(ALL_STATE, dataset, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / ".tmp-of-the-dead").mkdir()
    (tmp_path / "at_step_6.npz").replace(tmp_path / "run" / CHECKPOINT_FILE)
    with pytest.raises(InputError, match="an unfinished run .--resume continues it"):
        train(ALL_STATE, dataset, tmp_path / "run")
    train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    assert_same_runs(undisturbed, tmp_path / "run")
    assert not (tmp_path / "run" / ".tmp-of-the-dead").exists()


@pytest.mark.slow
def test_run_whose_first_files_did_not_fit_on_the_disk_begins_again(
    dataset, undisturbed, tmp_path, monkeypatch
):
    def fill(*_):
        raise OutputError("No space left on device")

    for writes in ("write_config", "write_whole"):
        with monkeypatch.context() as patch:
            patch.setattr(assembly, writes, fill)
            with pytest.raises(OutputError, match="No space left on device"):
                train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    assert_same_runs(undisturbed, tmp_path / "run")


def test_finished_run_is_not_redone(dataset, undisturbed):
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    result = train(ALL_STATE, dataset, undisturbed, resume=True)
    assert result.best_dice == read_run(undisturbed).best_dice
    assert len(result.history["loss"]) == 2
    assert before == {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}


def test_run_of_another_configuration_or_dataset_is_refused(dataset, undisturbed, tmp_path):
    other = override(ALL_STATE, {"training.learning_rate": 0.1, "model.filters": [4, 4]})
    message = (
        r"began with: model.filters was \[2, 4\], got \[4, 4\], training.learning_rate was 0.01,"
    )
    with pytest.raises(InputError, match=message):
        train(other, dataset, undisturbed, resume=True)
    records = {name: [[make_record(name, seed=9)]] for name in ("train", "validation")}
    other_data = write_dataset(tmp_path / "other", records)
    with pytest.raises(InputError, match="began with: data was [0-9a-f]{64}, got "):
        train(ALL_STATE, other_data, undisturbed, resume=True)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="must be new or empty, got .* with other files"):
        train(ALL_STATE, dataset, tmp_path, resume=True)


@pytest.fixture
def checkpoints(tmp_path):
    strategy = tf.distribute.get_strategy()
    return Checkpoints(tmp_path / "c.npz", [tf.Variable([1.0, 2.0])], strategy, {"devices": 1})


def test_checkpoint_brings_everything_back(checkpoints):
    assert checkpoints.restore() is None
    progress = RunProgress(
        "2026-01-01", step=3, epochs=({"loss": 0.1, "val_dice": float("nan")},), seconds=1.5
    )
    checkpoints.save(progress)
    checkpoints.variables[0].assign([0, 0])
    restored = checkpoints.restore()
    assert repr(restored) == repr(progress)
    assert checkpoints.variables[0].numpy().tolist() == [1, 2]


def test_checkpoint_that_cannot_be_written_leaves_the_last(checkpoints, monkeypatch):
    def fill_the_disk(path, **arrays):
        path.write_bytes(b"half a")
        raise OSError("no space left on device")

    checkpoints.save(RunProgress("then", step=3))
    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(RunProgress("then", step=4))
    assert checkpoints.restore().step == 3


def test_checkpoint_of_other_devices_is_refused(checkpoints):
    checkpoints.save(RunProgress("then"))
    checkpoints.identity["devices"] = 2
    with pytest.raises(InputError, match="began with: devices was 1, got 2"):
        checkpoints.restore()


def flipped(whole):
    return bytes([*whole[:200], whole[200] ^ 255, *whole[201:]])


# What a loss of power, a full disk or a failing one leave of a file, and what is said of it.
BROKEN = {
    "empty": (lambda whole: b"", "the file is empty"),
    "zeros": (lambda whole: bytes(len(whole)), "bytes are cut or overwritten"),
    "zeros at the end": (lambda whole: whole[:100] + bytes(len(whole) - 100), "cut or overwritten"),
    "cut": (lambda whole: whole[:-30], "bytes are cut or overwritten"),
    "zeros at the beginning": (lambda whole: bytes(100) + whole[100:], "checksum of .* is wrong"),
    "one byte": (flipped, "checksum of .* in it is wrong"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_checkpoint_is_named_with_what_to_do(checkpoints, kind):
    checkpoints.save(RunProgress("then"))
    damage, finding = BROKEN[kind]
    checkpoints.path.write_bytes(damage(checkpoints.path.read_bytes()))
    message = (
        rf"^incomplete or corrupt checkpoint: .*c\.npz: .*{finding}.*; delete it, and --resume"
    )
    with pytest.raises(InputError, match=message):
        checkpoints.restore()


def test_checkpoint_of_something_else_is_named(checkpoints):
    np.savez(checkpoints.path, weights=np.zeros(3))
    with pytest.raises(InputError, match=r"incomplete or corrupt checkpoint: .*c\.npz: .*progress"):
        checkpoints.restore()
    strategy = checkpoints.strategy
    other = Checkpoints(checkpoints.path, [tf.Variable([1.0])], strategy, checkpoints.identity)
    other.save(RunProgress("then"))
    with pytest.raises(InputError, match=r"incomplete or corrupt checkpoint: .*shape"):
        checkpoints.restore()


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_network_is_named_with_what_to_do(undisturbed, tmp_path, kind):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    damage, finding = BROKEN[kind]
    path = run / "best.keras"
    path.write_bytes(damage(path.read_bytes()))
    message = rf"^incomplete or corrupt network: {path}: .*{finding}.*; "
    with pytest.raises(InputError, match=message + "restore an intact copy, or"):
        load_run(run)
    with pytest.raises(InputError, match=message + "delete it, and --resume keeps the best"):
        KeepBest(path, None).resume()


@pytest.mark.slow
def test_run_without_its_best_network_has_the_patience_for_another(
    dataset, undisturbed, tmp_path, monkeypatch
):
    """The error of a broken file advises to delete it: nothing else of the run is lost."""
    config = override(ALL_STATE, {"training.patience": 1})
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(TrainingStoppedError):
            train(config, dataset, tmp_path / "run")
    (tmp_path / "run" / "best.keras").unlink()
    train(config, dataset, tmp_path / "run", resume=True)
    manifest = read_run(tmp_path / "run")
    assert manifest.weights_sha256 == read_run(undisturbed).weights_sha256
    assert manifest.best_epoch == 2


@pytest.mark.slow
def test_run_that_has_nothing_left_to_make_a_network_says_so(dataset, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    (run / FINAL_STATE_FILE).rename(run / CHECKPOINT_FILE)
    for name in ("run.json", "best.keras"):
        (run / name).unlink()
    message = r"no epoch is left that could make .*best\.keras: delete .*checkpoint\.npz, and"
    with pytest.raises(InputError, match=message):
        train(ALL_STATE, dataset, run, resume=True)
    (run / "checkpoint.npz").unlink()
    train(ALL_STATE, dataset, run, resume=True)
    assert read_run(run).best_epoch


def resumed(dataset):
    return lambda run: train(ALL_STATE, dataset, run, resume=True)


@pytest.mark.parametrize("content", [b"", bytes(500), b"epoch,loss\n1,x"], ids=len)
@pytest.mark.parametrize("name", ["run.json", "history.csv", "config.yaml", "model_info.json"])
def test_broken_small_file_of_a_run_is_named(dataset, undisturbed, tmp_path, name, content):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / name).write_bytes(content)
    read = load_run if name == "model_info.json" else resumed(dataset)
    with pytest.raises(InputError, match=rf"{name}\b") as caught:
        read(run)
    assert "\n" not in str(caught.value)


def test_best_network_is_never_replaced_by_a_worse_one(undisturbed, tmp_path):
    network, _ = load_run(undisturbed)
    path = tmp_path / "best.keras"
    first = KeepBest(path, network)
    first.resume()  # nothing there yet
    first.on_epoch_end(4, {"val_dice": 0.8})
    before = path.read_bytes()
    again = KeepBest(path, network)
    again.resume()
    assert (again.best_dice, again.best_epoch) == (0.8, 5)
    again.on_epoch_end(5, {"val_dice": 0.7})
    assert path.read_bytes() == before
    again.on_epoch_end(6, {"val_dice": 0.9})
    assert path.read_bytes() != before
