"""TensorBoard events of a run."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.evaluation.scores import score_organs, without_ignored
from fcnseg.figures.formats import png_of
from fcnseg.figures.overlay import draw_overlay
from fcnseg.figures.slices import middle_of
from fcnseg.networks.keras_compat import learning_rate
from fcnseg.training.callbacks import PRESENT_DICE
from fcnseg.training.event_files import trim_events, write_pictures, write_scalars
from fcnseg.volumes import Volume

logger = logging.getLogger(__name__)

_TAGS = {
    "learning_rate": "optimizer/learning_rate",
    "lost_organs": "dice/lost_organs",
    "patches_per_second": "time/patches_per_second",
}
_MOST_PICTURES = 3  # cases; a picture takes about half a second


class TensorBoardEvents(keras.callbacks.Callback):
    """Writes an epoch's logs, learning rate, speed, and pictures of the first validation cases.

    The axis is the step of the run. A resumed run removes the events that it is about to repeat.

    Attributes:
        epochs: Number of finished epochs; a resumed run sets it.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        *,
        patches_per_step: int,
        ignore_label: int | None = None,
    ) -> None:
        """Makes the callback.

        Args:
            folder: Folder of the event files.
            class_names: Class names in order, background first.
            patches_per_step: Patches per step, on all replicas together.
            ignore_label: Class index of voxels that scores in pictures leave out.
        """
        super().__init__()
        self.folder = folder
        self.class_names = class_names
        self.patches_per_step = patches_per_step
        self.ignore_label = ignore_label
        self.epochs = 0
        self._pictures: dict[str, bytes] = {}
        self._has_matplotlib = importlib.util.find_spec("matplotlib") is not None
        self._calls: list[tuple[int, float]] = []  # steps, and the seconds they took
        self._first_step, self._started = 0, 0.0  # start of the call

    def see_case(self, record: dict[str, tf.Tensor], mask: npt.NDArray[np.uint8]) -> None:
        """Draws a validation case, if it is one of the first.

        Args:
            record: Record from `decode_record`.
            mask: Class indices (z, y, x).
        """
        if self._has_matplotlib and len(self._pictures) < _MOST_PICTURES:
            case_id = record["case_id"].numpy().decode()
            picture = _picture(record, mask, self.class_names, ignore_label=self.ignore_label)
            self._pictures[f"validation/{case_id}"] = picture

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens a new file."""
        del logs
        if not self._has_matplotlib:
            logger.info("no pictures for TensorBoard without fcnseg's extra evaluation")
        trim_events(self.folder, last_step=self.epochs * self.params["steps"])
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the start time."""
        del logs
        self._first_step, self._started = batch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the end time; the loss is complete."""
        del logs
        steps = batch + 1 - self._first_step
        self._calls.append((steps, time.perf_counter() - self._started))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes everything."""
        values = {
            name: float(value)
            for name, value in (logs or {}).items()
            if not name.startswith(PRESENT_DICE)
        }
        values["learning_rate"] = learning_rate(self.model.optimizer)
        # In the first call of a process TensorFlow builds the graph.
        if calls := self._calls[1:] if epoch == self.epochs else self._calls:
            steps, seconds = map(sum, zip(*calls, strict=True))
            values["patches_per_second"] = self.patches_per_step * steps / seconds
        step = (epoch + 1) * self.params["steps"]
        with self._writer.as_default():
            write_scalars({tag_of(name): value for name, value in values.items()}, step=step)
            write_pictures(self._pictures, step=step)
        self._writer.flush()
        self._calls, self._pictures = [], {}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the file."""
        del logs
        self._writer.close()


def tag_of(name: str) -> str:
    """The tag of a value of the logs; TensorBoard groups tags by their first part.

    >>> tag_of("val_loss"), tag_of("dice"), tag_of("val_dice_portal vein")
    ('loss/validation', 'dice/training', 'dice/portal vein/validation')
    """
    if name in _TAGS:
        return _TAGS[name]
    split = "validation" if name.startswith("val_") else "training"
    metric, _, organ = name.removeprefix("val_").partition("_")
    return "/".join([metric, organ, split] if organ else [metric, split])


def _picture(
    record: dict[str, tf.Tensor],
    mask: npt.NDArray[np.uint8],
    class_names: Sequence[str],
    *,
    ignore_label: int | None,
) -> bytes:
    """A PNG of the middle slices, with the outlines and Dice of each organ."""
    affine = record["affine"].numpy()
    image, label = (Volume(record[name].numpy(), affine) for name in ("image", "label"))
    pair = without_ignored(label.array, mask, ignore_label)
    scores = score_organs(*pair, num_classes=len(class_names))
    figure = draw_overlay(
        label,
        Volume(mask, affine),
        image,
        title=record["case_id"].numpy().decode(),
        dice={organ: score.dice for organ, score in zip(class_names[1:], scores, strict=True)},
        place=middle_of(label),
    )
    return png_of(figure, dpi=100)
