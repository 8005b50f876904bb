"""Proposed configuration for a dataset within a memory budget, with reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fcnseg.config import Config
from fcnseg.errors import ConfigError
from fcnseg.planning.budget import Budget
from fcnseg.planning.candidates import Candidate, candidates
from fcnseg.planning.facts import PlanningFacts
from fcnseg.planning.reasons import notes_of, reasons_of
from fcnseg.records import DatasetInfo
from fcnseg.volumes import Triple

_SHUFFLED_BYTES = 2 * 2**30  # host memory of the shuffle buffer; our own choice
_BYTES_PER_VOXEL = 3  # HU and label
_BLOCKS = 3  # blocks of the shuffle buffer held at once (fcnseg.sampling.make_training_dataset)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed configuration for a dataset.

    Attributes:
        config: The configuration.
        reasons: The reason of each value that is planned or not a default, by dotted key.
        notes: Remarks beyond single values: spacing, memory, coverage.
        spacing_mm: Spacing (z, y, x) that suits the files; that of the records may differ.
        training_bytes: Estimated memory of a training step.
    """

    config: Config
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    spacing_mm: Triple
    training_bytes: int


def propose(info: DatasetInfo, base: Config, *, base_name: str, memory_gib: float) -> Proposal:
    """Plans a configuration for the records in their present spacing.

    Args:
        info: Manifest of the dataset; the plan is for the cases of its train split.
        base: Base configuration; its settings are kept where data and memory do not decide.
        base_name: Its name in the reasons.
        memory_gib: Memory for the tensors of a training step on one device.

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
    """Refuses settings that fix a network's patch size or depth."""
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
    """The base with the planned values."""
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
