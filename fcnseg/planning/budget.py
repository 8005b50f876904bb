"""The search for a candidate that fits a memory budget, and its batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from fcnseg.errors import ConfigError
from fcnseg.networks import model_summary
from fcnseg.planning.candidates import Candidate
from fcnseg.volumes import Zyx

GIB = 2**30
MIN_BATCH = 2  # patches; nnU-Net
MOST_OF_DATASET = 0.05  # fraction of its voxels in a batch; nnU-Net


@dataclasses.dataclass(frozen=True)
class Budget:
    """Memory budget of training steps.

    Attributes:
        memory_gib: Memory for the tensors of a step.
        num_classes: Classes, background included.
        precision: Keras's precision policy of training.
    """

    memory_gib: float
    num_classes: int
    precision: str

    def training_bytes(self, candidate: Candidate, batch_size: int) -> int:
        """Memory of a training step, estimated by `model_summary`."""
        return model_summary(
            candidate.model,
            num_classes=self.num_classes,
            patch_size=candidate.patch_size,
            batch_size=batch_size,
            precision=self.precision,
        ).training_bytes

    def fits(self, candidate: Candidate) -> bool:
        """Tells whether a candidate fits with the smallest batch."""
        return self.training_bytes(candidate, MIN_BATCH) <= self.memory_gib * GIB

    def first_that_fits(self, candidates: Iterable[Candidate]) -> Candidate:
        """Finds the first candidate that fits with the smallest batch.

        Raises:
            ConfigError: If none fits; the message has the memory of the last one.
        """
        for candidate in candidates:
            if self.fits(candidate):
                return candidate
        needed = self.training_bytes(candidate, MIN_BATCH)
        enough = -(-needed * 1000 // GIB) / 1000  # rounded up, so that it is enough
        raise ConfigError(
            f"memory_gib must be at least {enough:g}, which the smallest network takes"
            f" ({candidate.model.filters[0]} channels at the top, {MIN_BATCH} patches of"
            f" {Zyx(candidate.patch_size):d} voxels), got {self.memory_gib:g}"
        )

    def largest_batch(self, candidate: Candidate, *, dataset_voxels: int) -> int:
        """Finds the largest batch that fits and is no more than a share of the dataset.

        Args:
            candidate: A candidate that fits with the smallest batch.
            dataset_voxels: Voxels of the training cases.
        """
        one, two = (self.training_bytes(candidate, size) for size in (1, 2))
        # Memory is linear in the batch size.
        share = int(MOST_OF_DATASET * dataset_voxels // candidate.voxels)
        fit = 1 + (self.memory_gib * GIB - one) / (two - one)  # infinite for any memory
        return max(MIN_BATCH, int(min(fit, share)))
