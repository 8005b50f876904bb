"""The task of all contenders of `bench_learning.py`, readable by any Python.

One size of network, patch and batch for all, so that recipes are compared and not network widths:
those of fcnseg's preset `demo`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

ORGANS = ("artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas")
SPACING_MM = 4.0
PATCH = (32, 48, 48)  # voxels (z, y, x)
BATCH = 3  # patches per step
FILTERS = (8, 16, 32, 64)  # channels of each level
IMAGES, LABELS, UNSEEN, SPLITS_FILE = "images", "labels", "unseen", "splits.json"
TRAINED_FILE = "trained.json"
EPOCHS = 15  # of the preset demo
_CHECKPOINTS = 3


@dataclasses.dataclass(frozen=True)
class Task:
    """One training run of one contender.

    Attributes:
        contender: Name of the contender.
        data: Folder with `images/`, `labels/`, `unseen/` (images to segment) and `splits.json`,
            cases by split; all of `SPACING_MM`, in RAS.
        shared: Folder for data that the contender prepares once for all of its runs.
        output: Folder of the run: `trained.json` and the folders of masks that it names.
        seed: Seed of the run.
        steps: Number of steps, of `BATCH` patches each; a multiple of the epochs.
        epochs: Number of epochs.
        segments: Whose weights segment the unseen images: those of no step, of the last step, or
            of each checkpoint.
        options: Options of the contender.
    """

    contender: str
    data: Path
    shared: Path
    output: Path
    seed: int
    steps: int
    epochs: int = EPOCHS
    segments: Literal["none", "last", "checkpoints"] = "last"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Steps from one epoch to the next."""
        return self.steps // self.epochs

    @property
    def validate_every(self) -> int:
        """Epochs from one checkpoint to the next; the last epoch has one too."""
        return math.ceil(self.epochs / _CHECKPOINTS)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The steps whose weights segment the unseen images."""
        between = range(self.validate_every, self.epochs, self.validate_every)
        epochs = {
            "none": (),
            "last": (self.epochs,),
            "checkpoints": (*between, self.epochs),
        }[self.segments]
        return tuple(epoch * self.steps_per_epoch for epoch in epochs)

    def cases(self, split: str) -> list[str]:
        """The ids of a split's cases."""
        return json.loads((self.data / SPLITS_FILE).read_text())[split]

    def masks(self, step: int) -> Path:
        """The folder for the masks CASE.nii.gz of the weights after a step."""
        return self.output / f"masks_{step}"

    def to_json(self) -> str:
        """Formats the task for `from_json`."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {name: Path(values[name]) for name in ("data", "shared", "output")})

    def finish(self, *, seconds: float, parameters: int) -> None:
        """Marks the run as complete.

        Args:
            seconds: Time of the steps, waiting for their data included; without imports, starting
                the workers that make patches, validation and prediction.
            parameters: Number of trainable parameters of the network.
        """
        facts = {"seconds": round(seconds, 2), "parameters": parameters}
        (self.output / TRAINED_FILE).write_text(json.dumps(facts))


def whole_steps(steps: float) -> int:
    """Rounds steps down to a multiple of the epochs."""
    return max(1, int(steps) // EPOCHS) * EPOCHS
