"""A run shows a line per epoch that fits a terminal, and no more in a file."""

from __future__ import annotations

import logging
import re

import pytest
from small_records import write_small_dataset
from small_runs import ALL_STATE, stop_after

from fcnseg.config import override
from fcnseg.training import TrainingStoppedError, train
from fcnseg.training.epoch_line import summary_of

TRAINED = {"loss": 0.51234, "dice": 0.7}


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ({}, "loss 0.51, Dice 0.70"),
        (
            {"val_loss": 0.6, "val_dice": 0.5, "val_dice_liver": 0.8, "val_dice_spleen": 0.2},
            "loss 0.51, Dice 0.70; val loss 0.60, Dice 0.500, worst spleen 0.20",
        ),
        (
            {"val_loss": 0.6, "val_dice": float("nan"), "val_dice_liver": float("nan")},
            "loss 0.51, Dice 0.70; val loss 0.60, Dice nan",
        ),
    ],
)
def test_an_epoch_is_summed_up(added, expected):
    assert summary_of({**TRAINED, **added}) == expected


def test_a_line_fits_a_terminal():
    organ = "val_dice_" + "a very long name of an organ " * 3
    text = summary_of({**TRAINED, "val_loss": 0.6, "val_dice": 0.5, organ: 0.1})
    assert len(f"epoch 1000/1000: {text}; 100 s") <= 100


def test_each_epoch_has_its_line(tmp_path, caplog, capfd):
    config = override(ALL_STATE, {"training.validate_every": 2})
    data = write_small_dataset(tmp_path / "records")
    with caplog.at_level(logging.INFO):
        train(config, data, tmp_path / "run")
    lines = [line for line in caplog.messages if line.startswith("epoch")]
    assert ["val loss" in line for line in lines] == [False, True]
    assert re.fullmatch(r"epoch 1/2: loss \d\.\d\d, Dice 0\.\d\d; \d+ s", lines[0])
    out, _ = capfd.readouterr()
    assert out == ""


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_no_bar(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    stop_after(monkeypatch, 3)
    with pytest.raises(TrainingStoppedError):
        train(ALL_STATE, write_small_dataset(tmp_path / "records"), tmp_path / "run")
    _, shown = capfd.readouterr()
    assert "epoch 1/2" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is shown again
