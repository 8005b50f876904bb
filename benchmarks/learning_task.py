"""The task of all contenders of `bench_learning.py`, readable by any Python.

One size of network, patch and batch for all, so that recipes are compared and not network widths:
those of fcnseg's preset `demo`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

ORGANS = ("artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas")
SPACING_MM = 4.0
PATCH = (32, 48, 48)  # voxels (z, y, x)
BATCH = 3  # patches per step
FILTERS = (8, 16, 32, 64)  # channels of each level
IMAGES, LABELS, UNSEEN, SPLITS_FILE = "images", "labels", "unseen", "splits.json"
TRAINED_FILE = "trained.json"
_MOST_EPOCHS = 15  # epochs of the preset demo, of 50 steps each
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
        steps: Number of steps, of `BATCH` patches each.
        curve: True to segment unseen images with the weights of intermediate checkpoints too.
        options: Options of the contender.
    """

    contender: str
    data: Path
    shared: Path
    output: Path
    seed: int
    steps: int
    curve: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """The number of epochs: divides the steps, and is not above that of the preset."""
        return max(count for count in range(1, _MOST_EPOCHS + 1) if self.steps % count == 0)

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
        """The steps after which weights are used for segmentation, the last of them at the end."""
        if not self.curve:
            return (self.steps,)
        epochs = {*range(self.validate_every, self.epochs, self.validate_every), self.epochs}
        return tuple(epoch * self.steps_per_epoch for epoch in sorted(epochs))

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
        facts = {"training_s": round(seconds, 2), "parameters": parameters}
        (self.output / TRAINED_FILE).write_text(json.dumps(facts))


def whole_steps(steps: float) -> int:
    """Rounds down steps to as many epochs as a run of the preset has."""
    return max(1, int(steps) // _MOST_EPOCHS) * _MOST_EPOCHS
