"""The output of a run while it trains: a line per epoch, and a bar on a terminal."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import keras
from rich.console import Console
from rich.progress import Progress

logger = logging.getLogger(__name__)

_NAME = 16  # characters of an organ's name that fit into a line of 100


class EpochLine(keras.callbacks.Callback):
    """Logs a line at the end of an epoch, and shows a bar of its steps on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the bar."""
        del logs
        self._started = time.perf_counter()
        self._bar.add_task(f"epoch {epoch + 1}/{self.params['epochs']}", total=self.params["steps"])
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advances the bar."""
        del logs
        self._bar.update(self._bar.task_ids[-1], completed=batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Replaces the bar by the line."""
        self.close()
        seconds = time.perf_counter() - self._started
        number = f"epoch {epoch + 1}/{self.params['epochs']}"
        logger.info(f"{number}: {summary_of(logs or {})}; {seconds:.0f} s")

    def close(self) -> None:
        """Removes the bar; to be called where training ends in the midst of an epoch too."""
        self._bar.stop()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)


def summary_of(logs: Mapping[str, float]) -> str:
    """Formats the logs of an epoch, after a validation with its loss, Dice and worst organ."""
    text = f"loss {logs['loss']:.2f}, Dice {logs['dice']:.2f}"
    if "val_dice" not in logs:
        return text
    text += f"; val loss {logs['val_loss']:.2f}, Dice {logs['val_dice']:.3f}"
    organs = {
        name.removeprefix("val_dice_"): dice
        for name, dice in logs.items()
        if name.startswith("val_dice_") and not math.isnan(dice)
    }
    if not organs:
        return text
    worst = min(organs, key=organs.__getitem__)
    return f"{text}, worst {worst[:_NAME]} {organs[worst]:.2f}"
