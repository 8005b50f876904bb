"""What to train on a dataset within a memory budget, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fcnseg.config import Config
from fcnseg.errors import ConfigError
from fcnseg.networks.anisotropy import Spacing
from fcnseg.planning.budget import Budget
from fcnseg.planning.candidates import Candidate, candidates
from fcnseg.planning.facts import PlanningFacts
from fcnseg.planning.reasons import notes_of, reasons_of
from fcnseg.records import DatasetInfo

_SHUFFLED_BYTES = 2 * 2**30  # of host memory; our own choice
_BYTES_PER_VOXEL = 3  # HU and label
_BLOCKS = 3  # of the shuffle buffer, held at once (fcnseg.sampling.make_training_dataset)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A configuration for a dataset.

    Attributes:
        config: The configuration.
        reasons: Why, of each value that is planned or no default, by dotted key.
        notes: What is to be known beyond single values: spacing, memory, cover.
        spacing_mm: (z, y, x) that the files ask for; that of the records may be another one.
        training_bytes: Memory that a training step takes, estimated.
    """

    config: Config
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    spacing_mm: Spacing
    training_bytes: int


def propose(info: DatasetInfo, base: Config, *, base_name: str, memory_gib: float) -> Proposal:
    """Plans a configuration for the records as they are.

    Args:
        info: Of the dataset; the cases of its train split are planned for.
        base: Whose settings are kept where data and memory do not decide.
        base_name: What the reasons call it.
        memory_gib: For the tensors of a training step on one device.

    Raises:
        DatasetError: If the dataset has no labels, no fingerprint, or nothing to train on.
        ConfigError: If not even the smallest network fits the budget, or none can be planned from
            `base`.
    """
    _check_base(base, base_name)
    facts = PlanningFacts.of(info)
    budget = Budget(memory_gib, info.num_classes, base.training.precision)
    candidate = budget.first_that_fits(candidates(base.model, facts.spacing_mm, facts.shape))
    batch_size = budget.largest_batch(candidate, dataset_voxels=facts.voxels)
    config = _config(base, candidate, batch_size, facts.hu_window)
    needed = budget.training_bytes(candidate, batch_size)
    return Proposal(
        config=config,
        reasons=reasons_of(config, base, facts, base_name=base_name),
        notes=notes_of(config, facts, memory_gib=memory_gib, training_bytes=needed),
        spacing_mm=facts.target_spacing_mm,
        training_bytes=needed,
    )


def _check_base(base: Config, name: str) -> None:
    """Refuses what ties a network to one patch or depth."""
    fixed: dict[str, tuple[object, object]] = {
        "model.padding": (base.model.padding, "same"),
        "model.pyramid": (base.model.pyramid, 1),
        "loss.level_weights": (base.loss.level_weights, ()),
    }
    for key, (value, needed) in fixed.items():
        if value != needed:
            raise ConfigError(f"{key} must be {needed} for a plan, got {value} (config {name})")


def _config(
    base: Config, candidate: Candidate, batch_size: int, window: tuple[float, float]
) -> Config:
    """The base with what is planned in its place."""
    z, y, x = candidate.patch_size
    most = _SHUFFLED_BYTES // (_BLOCKS * _BYTES_PER_VOXEL * candidate.voxels)
    patches = dataclasses.replace(
        base.patches,
        size=candidate.patch_size,
        batch_size=batch_size,
        shuffle_buffer=max(1, min(base.patches.shuffle_buffer, most)),
    )
    return dataclasses.replace(
        base,
        model=dataclasses.replace(candidate.model, hu_window=window),
        patches=patches,
        augmentation=dataclasses.replace(base.augmentation, gamma_window=window),
        inference=dataclasses.replace(base.inference, overlap=(z // 2, y // 2, x // 2)),
    )
