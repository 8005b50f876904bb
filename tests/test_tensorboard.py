"""What TensorBoard is told of a run, also of one that was killed and goes on."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import tensorflow as tf
from small_records import make_record, write_dataset
from small_runs import ALL_STATE, stop_after

from fcnseg.config import override
from fcnseg.runs.run_folder import TENSORBOARD_FOLDER
from fcnseg.training import TrainingStoppedError, train
from fcnseg.training.checkpoints import Checkpoints
from fcnseg.training.event_files import trim_events, write_pictures, write_scalars
from fcnseg.training.optimizer import make_schedule
from fcnseg.training.tensorboard import tag_of

pytest.importorskip("tensorboard", reason="only reads what is written here: the extra tuning")
from tensorboard.backend.event_processing.event_accumulator import (
    IMAGES,
    TENSORS,
    EventAccumulator,
)

CONFIG = override(ALL_STATE, {"training.tensorboard": True})
EPOCHS, STEPS = CONFIG.training.epochs, CONFIG.training.steps_per_epoch
SCORES = ["dice", "dice_liver", "dice_spleen"]


def events_of(folder):
    """What TensorBoard reads; nothing is thinned out, and nothing is dropped as repeated."""
    events = EventAccumulator(str(folder), {TENSORS: 0, IMAGES: 0}, purge_orphaned_data=False)
    return events.Reload()


def scalars_of(folder, name):
    """Pairs of the step and the value."""
    events = events_of(folder).Tensors(name)
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events]


def picture_of(event):
    """Pixels (height, width, channels), and the size that is told beside them."""
    width, height, png = tf.make_ndarray(event.tensor_proto)
    return tf.io.decode_png(png).numpy(), (int(height), int(width))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A dataset with more cases to validate on than are drawn."""
    cases = [make_record(f"case_{seed}", seed=seed, shape=(8, 12, 12)) for seed in range(5)]
    splits = {"train": [cases[:2]], "validation": [cases]}
    return write_dataset(tmp_path_factory.mktemp("data") / "records", splits)


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    return train(CONFIG, records, tmp_path_factory.mktemp("runs") / "run").run_dir


def test_scalars_are_those_of_the_history(run_dir):
    folder = run_dir / TENSORBOARD_FOLDER
    with open(run_dir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {name for name in rows[0] if name != "epoch"}
    scalars = set(events_of(folder).PluginTagToContent("scalars"))
    others = {"optimizer/learning_rate", "time/patches_per_second", "dice/lost_organs"}
    assert scalars == {tag_of(name) for name in expected} | others
    assert {tag.partition("/")[0] for tag in scalars} == {"loss", "dice", "optimizer", "time"}
    assert scalars >= {"loss/validation", "dice/training", "dice/spleen/validation"}
    assert expected >= {"loss", *SCORES, *(f"val_{score}" for score in SCORES)}
    for name in expected:
        values = [float(row[name]) for row in rows]
        steps = [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
        pairs = [(s, v) for s, v in zip(steps, values, strict=True) if not math.isnan(v)]
        assert scalars_of(folder, tag_of(name)) == [(step, pytest.approx(v)) for step, v in pairs]
    schedule = make_schedule(CONFIG.training)
    rates = [(STEPS, pytest.approx(float(schedule(STEPS)))), (2 * STEPS, pytest.approx(0))]
    assert scalars_of(folder, "optimizer/learning_rate") == rates
    assert all(speed > 0 for _, speed in scalars_of(folder, "time/patches_per_second"))


def test_pictures_show_three_validation_cases(run_dir):
    events = events_of(run_dir / TENSORBOARD_FOLDER)
    names = sorted(events.PluginTagToContent("images"))
    assert names == [f"validation/case_{seed}" for seed in range(3)]
    pictures = events.Tensors(names[-1])
    assert [picture.step for picture in pictures] == [STEPS, 2 * STEPS]
    pixels, size = picture_of(pictures[-1])
    assert pixels.shape[:2] == size
    colours = pixels[..., :3].astype(int)
    assert (np.ptp(colours, axis=-1) > 100).any()  # outlines in colour on grey slices


@pytest.mark.slow
def test_run_that_was_killed_twice_tells_each_step_once(records, run_dir, tmp_path, monkeypatch):
    """Before its first checkpoint, and then after events of which the checkpoint knows nothing."""
    folder = tmp_path / "run" / TENSORBOARD_FOLDER
    save = Checkpoints.save

    def die(self, progress):
        if len(progress.epochs) == EPOCHS:
            raise KeyboardInterrupt
        save(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", lambda *_: None)
        stop_after(patch, STEPS + 1)
        with pytest.raises(TrainingStoppedError):
            train(CONFIG, records, tmp_path / "run")
    assert [step for step, _ in scalars_of(folder, "loss/training")] == [STEPS]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", die)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, records, tmp_path / "run", resume=True)
    assert [step for step, _ in scalars_of(folder, "loss/training")] == [STEPS, 2 * STEPS]
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes() + b"cut")
    train(CONFIG, records, tmp_path / "run", resume=True)
    for name in ("loss/training", "dice/validation", "optimizer/learning_rate"):
        assert scalars_of(folder, name) == scalars_of(run_dir / TENSORBOARD_FOLDER, name)
    pictures = events_of(folder).Tensors("validation/case_2")
    assert [picture.step for picture in pictures] == [STEPS, 2 * STEPS]


def test_events_can_be_left_out(records, tmp_path):
    config = override(CONFIG, {"training.tensorboard": False, "training.epochs": 1})
    train(config, records, tmp_path / "run")
    assert not (tmp_path / "run" / TENSORBOARD_FOLDER).exists()


def test_trimming_keeps_what_is_whole_and_early(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    from matplotlib.figure import Figure

    png = io.BytesIO()
    Figure(figsize=(3, 2), dpi=10).savefig(png, format="png")
    with writer.as_default():
        for step in (1, 2, 3):
            write_scalars({"loss": float(step), "dice": math.nan}, step=step)
            write_pictures({"case": png.getvalue()}, step=step)
    writer.close()
    trim_events(tmp_path, last_step=2)
    assert scalars_of(tmp_path, "loss") == [(1, 1.0), (2, 2.0)]
    assert "dice" not in events_of(tmp_path).Tags()[TENSORS]
    pictures = events_of(tmp_path).Tensors("case")
    assert [picture.step for picture in pictures] == [1, 2]
    assert picture_of(pictures[0])[1] == (20, 30)
