"""A run from records to its folder, and what refuses to run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_records import CLASSES, make_record, write_dataset, write_small_dataset
from small_runs import make_config

from fcnseg import __version__
from fcnseg.cli.command import run_command
from fcnseg.cli.train import TrainCommand
from fcnseg.config import ModelConfig, override, read_config, write_config
from fcnseg.errors import ConfigError, DatasetError, InputError, ModelError
from fcnseg.evaluation import score_organs
from fcnseg.inference import load_run, make_segmenter
from fcnseg.records import COMPLETED_FILE, Dataset, Fold
from fcnseg.runs.model_info import ModelInfo
from fcnseg.sampling import make_volume_dataset
from fcnseg.training import check_dataset, read_run, train
from fcnseg.training.callbacks import HistoryFile, KeepBest
from fcnseg.training.dataset_checks import warn_of_few_validation_cases
from fcnseg.training.strategy import make_strategy

CONFIG = make_config(
    ModelConfig(filters=(4, 8)), epochs=3, steps_per_epoch=2, validate_every=2, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A run of three epochs that validates after the second and the last."""
    return train(CONFIG, dataset, tmp_path_factory.mktemp("runs") / "run")


OTHER_SEED = override(CONFIG, {"training.seed": 1})


@pytest.fixture(scope="module")
def of_other_seed(dataset, tmp_path_factory):
    """The folder of the same run with another seed, by the command."""
    folder = tmp_path_factory.mktemp("command")
    write_config(CONFIG, folder / "config.yaml")
    argv = ["--config", folder / "config.yaml", "--data", dataset, "--run_dir", folder / "run"]
    run_command(TrainCommand, [*map(str, argv), "--training.seed", "1"])
    return folder / "run"


@pytest.fixture(scope="module")
def unfinished(dataset, tmp_path_factory):
    """The folder of the same run, which died in its second epoch, once that was in the history."""
    run_dir = tmp_path_factory.mktemp("unfinished") / "run"

    def die(self, epoch, logs=None):
        write(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    write = HistoryFile.on_epoch_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HistoryFile, "on_epoch_end", die)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, dataset, run_dir)
    return run_dir


CPU = ("/job:localhost/replica:0/task:0/device:CPU:0",)


def history_rows(run_dir):
    with open(run_dir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_folder_tells_what_ran(finished, dataset):
    run_dir = finished.run_dir
    files = {path.name for path in run_dir.iterdir()}
    files_of_a_run = {"config.yaml", "model_info.json", "history.csv", "best.keras", "run.json"}
    assert files == files_of_a_run | {"tensorboard", "final_state.npz"}
    assert read_config(run_dir / "config.yaml") == CONFIG
    info = ModelInfo.read(run_dir)
    assert info.class_names == CLASSES
    assert info.spacing_mm == (2.0, 2.0, 2.0)
    assert (info.window, info.overlap, info.batch_size) == ((8, 12, 12), (2, 4, 4), 2)
    manifest = read_run(run_dir)
    assert manifest.config == CONFIG
    assert manifest.data == str(dataset)
    assert manifest.versions["fcnseg"] == __version__
    assert manifest.versions["keras"] == keras.__version__
    assert len(manifest.devices) == 1
    assert (manifest.best_dice, manifest.best_epoch) == (finished.best_dice, finished.best_epoch)
    assert 0 < manifest.validation_seconds < manifest.seconds
    assert json.loads((run_dir / "run.json").read_text())["status"] == "completed"


def test_history_has_validation_where_there_was_one(finished):
    rows = history_rows(finished.run_dir)
    scores = ["dice", "dice_liver", "dice_spleen"]
    validated = ["val_loss", *(f"val_{score}" for score in scores)]
    assert list(rows[0]) == ["epoch", "loss", *scores, *validated]
    organs = np.array([[float(row[score]) for score in scores[1:]] for row in rows])
    assert [float(row["dice"]) for row in rows] == pytest.approx(np.nanmean(organs, axis=1))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [bool(row["val_dice"]) for row in rows] == [False, True, True]
    validated = [float(row["val_dice"]) for row in rows[1:]]
    assert finished.history["val_dice"] == pytest.approx(validated)
    assert finished.best_dice == max(validated)
    assert finished.best_epoch == 2 + validated.index(max(validated))


def test_kept_network_scores_what_was_written(finished, dataset):
    model, info = load_run(finished.run_dir)
    segmenter = make_segmenter(model, info)
    (record,) = make_volume_dataset(Dataset.open(dataset), "validation")
    mask = segmenter.segment_model_grid(record["image"]).numpy()
    scores = score_organs(record["label"].numpy(), mask, num_classes=3)
    assert np.mean([organ.dice for organ in scores]) == pytest.approx(finished.best_dice)
    parameters = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert read_run(finished.run_dir).parameters == parameters


def test_same_seed_same_run(finished, unfinished, of_other_seed):
    """Also after a validation."""
    run, again, other = (
        [float(row["loss"]) for row in history_rows(run_dir)]
        for run_dir in (finished.run_dir, unfinished, of_other_seed)
    )
    assert again == pytest.approx(run[:2], rel=1e-5)
    assert other[0] != pytest.approx(run[0], rel=1e-3)


@pytest.mark.slow
def test_network_without_padding_trains_on_the_middle_of_its_patches(dataset, tmp_path):
    settings = {
        "model.padding": "valid",
        "model.skip": "concat",
        "patches.size": [20, 20, 20],  # 4 voxels come out
        "inference.overlap": [0, 0, 0],
        "training.epochs": 1,
    }
    result = train(override(CONFIG, settings), dataset, tmp_path / "run")
    assert np.isfinite(result.history["loss"]).all()


@pytest.mark.slow
def test_learns_two_boxes(dataset, tmp_path):
    """What each class looks like is in its HU: a small network gets it right within seconds."""
    settings = {"training.epochs": 4, "training.steps_per_epoch": 40, "training.validate_every": 1}
    result = train(override(CONFIG, settings), dataset, tmp_path / "run")
    assert result.best_dice > 0.9
    first, *_, last = result.history["loss"]
    assert last < 0.7 < first  # Dice and cross-entropy; 0.64 was seen


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": 8},
            "the validation split of .* has no cases: convert with another --validation_fraction,"
            " another --split_seed or other splits in the list, or train with --fold 0 --folds 5",
        ),
        ({"train": 1}, "the validation split of .* has no cases: convert more cases$"),
        ({"validation": 3}, "the train split of .* has no cases: .* --fold 0 --folds 3$"),
    ],
)
def test_empty_split_is_named_before_training(tmp_path, splits, message):
    records = {
        name: [[make_record(f"case_{seed}", seed=seed) for seed in range(count)]]
        for name, count in splits.items()
    }
    folder = write_dataset(tmp_path / "records", records)
    with pytest.raises(DatasetError, match=message):
        train(CONFIG, folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("cases", "warnings"), [(2, 1), (3, 0)])
def test_few_validation_cases_are_one_warning(tmp_path, caplog, cases, warnings):
    records = {
        name: [[make_record(f"{name}_{seed}", seed=seed) for seed in range(cases)]]
        for name in ("train", "validation")
    }
    dataset = Dataset.open(write_dataset(tmp_path / "records", records))
    check_dataset(dataset)
    assert not caplog.records
    warn_of_few_validation_cases(dataset)
    assert len(caplog.records) == warnings
    if warnings:
        assert f"validation has {cases} of {2 * cases} cases: convert" in caplog.text
        assert f"--fold 0 --folds {min(5, 2 * cases)}" in caplog.text


def test_split_without_organs_is_named(tmp_path):
    records = {
        "train": [[make_record("case", seed=0)]],
        "validation": [[make_record("empty", seed=0, organs=())]],
    }
    folder = write_dataset(tmp_path / "records", records)
    with pytest.raises(DatasetError, match="validation split of .* has no voxel of any organ"):
        train(CONFIG, folder, tmp_path / "run")


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("fold", [None, Fold(0, 2)])
def test_split_whose_only_organ_is_ignored_is_named(tmp_path, split, fold):
    """Without a check, a run would train to its end and have no validation Dice to choose by."""
    cases = {name: make_record(name, seed=seed) for seed, name in enumerate(("a", "b"))}
    validating = "a" if fold is None else fold.validating(cases, seed=0).pop()
    lacking = validating if split == "validation" else ({*cases} - {validating}).pop()
    cases[lacking] = make_record(lacking, seed=2, organs=(1,))
    training = [record for name, record in cases.items() if name != validating]
    splits = {"train": [training], "validation": [[cases[validating]]]}
    folder = write_dataset(tmp_path / "records", splits)
    config = override(CONFIG, {"loss.ignore_label": 1})
    with pytest.raises(DatasetError, match=f"{split} .*any organ where loss.ignore_label is 1"):
        train(config, folder, tmp_path / "run", fold=fold)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches.size": [8, 12, 13]}, "input's x .* got 13 voxels; nearest that fit: 12 and 14"),
        (
            {"model.padding": "valid", "patches.size": [20, 20, 20]},
            "overlap must be smaller than what the network gives",
        ),
    ],
)
def test_patches_that_do_not_fit_are_refused(dataset, tmp_path, settings, message):
    with pytest.raises(ModelError, match=message):
        train(override(CONFIG, settings), dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_folder_in_use_is_refused(finished, dataset, tmp_path):
    before = read_run(finished.run_dir)
    with pytest.raises(InputError, match="must be new or empty, got .*run with a finished run"):
        train(CONFIG, dataset, finished.run_dir)
    assert read_run(finished.run_dir) == before
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="must be new or empty, got .* with other files"):
        train(CONFIG, dataset, tmp_path)
    with pytest.raises(InputError, match="must be a folder"):
        train(CONFIG, dataset, tmp_path / "notes.txt")


def test_unfinished_run_is_refused(unfinished, tmp_path):
    """A run that dies after it saved its best network is not taken for whole."""
    assert (unfinished / "best.keras").exists()
    with pytest.raises(InputError, match="is not a finished run: run.json is missing"):
        read_run(unfinished)
    with pytest.raises(InputError, match="no such run folder: .*nowhere"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="run.json is not a run manifest: best_dice"):
        read_run(tmp_path)


@pytest.mark.slow
def test_losses_at_coarser_levels_stay_out_of_the_network_that_is_kept(dataset, tmp_path):
    changes = {"deep_supervision": 1, "pyramid": 2, "filters": [4, 8, 8]}
    changes["strides"] = [[1, 2, 2], [2, 1, 1]]
    config = override(CONFIG, {f"model.{key}": value for key, value in changes.items()})
    config = override(config, {"training.epochs": 1, "training.validate_every": 1})
    result = train(config, dataset, tmp_path / "run")
    network, info = load_run(tmp_path / "run")
    assert network.output_shape[-1] == info.num_classes
    (logits,) = network(np.zeros((1, *config.patches.size, 1)))
    assert logits.shape == (*config.patches.size, info.num_classes)
    assert result.best_epoch == 1


def test_network_that_cannot_be_saved_leaves_the_last_best(tmp_path):
    class Unsaveable:
        def save(self, path):
            path.write_bytes(b"half a")
            raise OSError("no space left on device")

    keep = KeepBest(tmp_path / "best.keras", Unsaveable())
    (tmp_path / "best.keras").write_bytes(b"whole")
    with pytest.raises(OSError, match="no space"):
        keep.on_epoch_end(0, {"val_dice": 0.5})
    assert (tmp_path / "best.keras").read_bytes() == b"whole"


def test_command_trains_with_overridden_settings(of_other_seed):
    assert read_run(of_other_seed).config == OTHER_SEED


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "error: no such folder of records: nowhere"),
        (
            ["--patches.size", "9", "12", "12"],
            "error: the input's z must fit the network",
        ),
        (
            ["--loss.class_weights", "1", "1"],
            "error: loss.class_weights must be 3 numbers, for background, liver, spleen,"
            " got (1.0, 1.0)",
        ),
        (
            ["--loss.name", "focal", "--loss.class_weights", "1", "1", "1", "1"],
            "error: loss.class_weights must be 3 numbers",
        ),
        (
            ["--training.precision", "mixed_float16"],
            "error: training.precision must be float32 or mixed_bfloat16 on a CPU",
        ),
        (
            ["--loss.level_weights", "1", "0.5"],
            "error: loss.level_weights must be one number an output, or none, got (1.0, 0.5) for 3",
        ),
        (["--model.coarse_input"], "error: model.coarse_input must be false in training"),
        (["--devices", "GPU:7"], "error: devices must be among CPU:0, got GPU:7"),
        (["--fold", "0", "--folds", "5"], "error: folds must be at most as many as patients, 4"),
    ],
)
def test_command_ends_with_a_line(dataset, tmp_path, capsys, flags, message):
    argv = ["--config", "demo", "--data", str(dataset), "--run_dir", str(tmp_path / "run"), *flags]
    argv += ["--inference.overlap", "2", "2", "2"]
    with pytest.raises(SystemExit) as caught:
        run_command(TrainCommand, argv)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("organs", "loss", "message"),
    [
        ((1,), {"class_weights": (0, 0, 1)}, "all classes that there are to train on, .*, liver,"),
        ((1, 2), {"ignore_label": 0, "class_weights": (1, 0, 0)}, "class 0 is ignored"),
        ((1,), {"ignore_label": 0}, "leave two classes to tell apart, got 0, which leaves liver"),
    ],
)
def test_loss_that_the_dataset_leaves_nothing_is_refused(tmp_path, organs, loss, message):
    splits = {
        split: [[make_record(split, seed=seed, organs=organs)]]
        for seed, split in enumerate(("train", "validation"))
    }
    folder = write_dataset(tmp_path / "records", splits)
    with pytest.raises(ConfigError, match=message):
        train(override(CONFIG, {"loss": loss}), folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unfinished_dataset_is_refused(tmp_path):
    folder = write_small_dataset(tmp_path / "records")
    (folder / COMPLETED_FILE).unlink()
    with pytest.raises(DatasetError, match="not a finished dataset: COMPLETED is missing"):
        train(CONFIG, folder, tmp_path / "run")


AUGMENTED_IN_THE_STEP = {
    "augmentation.run_on": "device",
    "augmentation.rotation_degrees": [20, 20, 20],
    "augmentation.deformation_voxels": [2, 2, 2],
    "augmentation.noise_hu": 20,
}


@pytest.mark.slow
def test_augmented_on_the_host_or_in_front_of_the_network(dataset, tmp_path):
    """The same patches but for whole HU; the network that is kept is a plain one."""
    in_step = override(CONFIG, {**AUGMENTED_IN_THE_STEP, "training.epochs": 2})
    on_host = override(in_step, {"augmentation.run_on": "host"})
    first = train(on_host, dataset, tmp_path / "host", until_epoch=1)
    run = train(in_step, dataset, tmp_path / "device")
    assert run.history["loss"][:1] == pytest.approx(first.history["loss"], rel=2e-3)
    model, _ = load_run(run.run_dir)
    assert [weight.shape for weight in model.inputs] == [(None, None, None, None, 1)]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["2"], "devices must be 1 to 1, as there are CPU:0, got 2"),
        (["0"], "devices must be 1 to 1, .* got 0"),
        (["CPU:0", "GPU:7"], "devices must be among CPU:0, got GPU:7"),
        (["CPU:0", "cpu:0"], "devices must be of one kind, each named once, got CPU:0, CPU:0"),
    ],
)
def test_devices_that_are_not_there_are_named(dataset, tmp_path, devices, message):
    with pytest.raises(InputError, match=message):
        train(CONFIG, dataset, tmp_path / "run", devices=devices)


def test_devices_by_name_or_number():
    for devices in ([], ["1"], ["cpu:0"]):
        assert make_strategy(devices).extended.worker_devices == CPU


TRAIN_WHERE_THERE_ARE_TWO_DEVICES = """
import json
import sys
import tensorflow as tf
from fcnseg.cli.command import run_command
from fcnseg.cli.train import TrainCommand

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
for words in json.loads(sys.argv[1]):
    run_command(TrainCommand, words)
"""


def train_on_two_devices(runs, dataset):
    """A process of its own, since TensorFlow fixes its devices once.

    Args:
        runs: Devices and configuration of each run by its folder.
        dataset: Folder of records.
    """
    commands = []
    for run_dir, (devices, config) in runs.items():
        write_config(config, run_dir.with_suffix(".yaml"))
        flags = ["--config", run_dir.with_suffix(".yaml"), "--data", dataset, "--run_dir", run_dir]
        commands.append([*map(str, flags), "--devices", *devices])
    subprocess.run(
        [sys.executable, "-c", TRAIN_WHERE_THERE_ARE_TWO_DEVICES, json.dumps(commands)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )


@pytest.mark.timeout(900)  # two whole runs in a process of their own
@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [
        # Weights by the root of frequencies, and a loss that is three times as large. A batch and
        # its halves are resampled at places that may round a 65536th of a voxel apart.
        ({"loss.name": "dice_cross_entropy", **AUGMENTED_IN_THE_STEP}, 1e-4),
        # Weights by squared frequencies differ a thousandfold, and so do the noises of their sums.
        ({"loss.class_weights": "square"}, 3e-4),
        (
            {"training.optimizer": "sgd", "training.clip_norm": 0.1, "training.ema_decay": 0.5},
            1e-5,
        ),
    ],
    ids=["balanced and augmented", "square", "clipped"],
)
def test_two_devices_equal_one_on_the_same_global_batch(dataset, tmp_path, setting, tolerance):
    """The losses of 20 steps, each an epoch, and the Dice of the last network."""
    steps = {"training.epochs": 20, "training.steps_per_epoch": 1, "training.validate_every": 20}
    # Adam makes a whole step of a gradient that is nothing but rounding.
    small = {"training.learning_rate": 1e-3, "training.warmup_steps": 0, "loss.name": "dice"}
    config = override(CONFIG, {"model.norm": "sync_batch", **steps, **small, **setting})
    runs = {
        tmp_path / "one": (["CPU:1"], override(config, {"patches.batch_size": 4})),
        tmp_path / "two": (["2"], override(config, {"patches.batch_size": 2})),
    }
    train_on_two_devices(runs, dataset)
    assert [len(read_run(folder).devices) for folder in runs] == [1, 2]
    one, two = map(history_rows, runs)
    losses = [[float(row["loss"]) for row in rows] for rows in (one, two)]
    np.testing.assert_allclose(*losses, rtol=0, atol=tolerance)
    # Sums in another order move a few voxels of some thousand over the edge of an argmax.
    scores = [
        [[float(row[name] or "nan") for name in ("dice", "val_dice")] for row in rows]
        for rows in (one, two)
    ]
    np.testing.assert_allclose(*scores, rtol=0, atol=5e-3)
