"""Proposed configuration for a dataset within a budget of memory or time, with reasons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

from fcnseg.config import Config
from fcnseg.errors import ConfigError
from fcnseg.planning.budget import Budget
from fcnseg.planning.candidates import Candidate, candidates, narrowing
from fcnseg.planning.facts import PlanningFacts
from fcnseg.planning.reasons import (
    memory_note,
    notes_of,
    reasons_in_time,
    reasons_of,
    time_note,
)
from fcnseg.planning.time_budget import Stopwatch, TimeBudget
from fcnseg.records import DatasetInfo
from fcnseg.volumes import Shape, Triple, Zyx

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
    overlap = Zyx(length // 2 for length in candidate.patch_size)
    config = _config(base, candidate, batch_size, overlap, facts.hu_window)
    needed = budget.training_bytes(candidate, batch_size)
    return Proposal(
        config=config,
        reasons=reasons_of(config, base, facts, base_name=base_name),
        notes=notes_of(config, facts, budget=[memory_note(needed, memory_gib=memory_gib)]),
        spacing_mm=facts.target_spacing_mm,
        training_bytes=needed,
    )


def propose_in_time(
    info: DatasetInfo,
    base: Config,
    *,
    base_name: str,
    seconds_per_case: float,
    stopwatch: Stopwatch,
    memory_gib: float | None = None,
) -> Proposal:
    """Plans a configuration whose prediction of the median case takes no more than a given time.

    Of the channels at the top, from those of `base` down, it takes the most that fit, with the
    overlap of `base` or, if that is wider, of a quarter of a window.

    Args:
        info: Manifest of the dataset; the plan is for the cases of its train split.
        base: Base configuration; its settings are kept where data and budget do not decide.
        base_name: Its name in the reasons.
        seconds_per_case: Largest time of the prediction of the median case, in seconds.
        stopwatch: Measures the time on the device of prediction.
        memory_gib: Memory for the tensors of a training step on one device; by default, patches
            have about as many voxels as those of `base`, and the batch is that of `base`.

    Raises:
        DatasetError: If the dataset has no labels, no fingerprint, or nothing to train on.
        ConfigError: If not even the smallest network fits a budget, or none can be planned from
            `base`.
    """
    _check_base(base, base_name)
    facts = PlanningFacts.of(info)
    is_limited = memory_gib is not None
    most = math.inf if memory_gib is None else memory_gib
    memory = Budget(most, info.num_classes, base.training.precision)
    if is_limited:
        memory.first_that_fits(candidates(base.model, facts.spacing_mm, facts.shape))
    budget = TimeBudget(seconds_per_case, stopwatch, facts)
    timed = budget.first_that_fits(_narrowing(base, facts, memory, is_limited=is_limited))
    config, batch_size = timed.config, timed.config.patches.batch_size
    candidate = Candidate(config.model, config.patches.size)
    needed = memory.training_bytes(candidate, batch_size)
    notes = [time_note(timed.time, seconds_per_case), memory_note(needed, memory_gib=memory_gib)]
    return Proposal(
        config=config,
        reasons=reasons_of(config, base, facts, base_name=base_name)
        | reasons_in_time(timed, facts, base_name=base_name, is_limited=is_limited),
        notes=notes_of(config, facts, budget=notes),
        spacing_mm=facts.target_spacing_mm,
        training_bytes=needed,
    )


def _narrowing(
    base: Config, facts: PlanningFacts, memory: Budget, *, is_limited: bool
) -> Iterator[Config]:
    """Yields configurations, from the largest down, whose training fits the memory."""
    usual = math.prod(base.patches.size)
    for equals in narrowing(base.model, facts.spacing_mm, facts.shape):
        if is_limited:
            candidate = next(filter(memory.fits, equals), None)
        else:
            candidate = min(equals, key=lambda each: abs(each.voxels - usual))
        if candidate is None:
            continue
        batch_size = base.patches.batch_size
        if is_limited:
            batch_size = memory.largest_batch(candidate, dataset_voxels=facts.voxels)
        for overlap in _overlaps(base, candidate.patch_size):
            yield _config(base, candidate, batch_size, overlap, facts.hu_window)


def _overlaps(base: Config, window: Shape) -> list[Shape]:
    """The overlap of the base, scaled to a window, and then a quarter if that is less."""
    sizes = tuple(zip(window, base.inference.overlap, base.patches.size, strict=True))
    usual = Zyx(length * overlap // size for length, overlap, size in sizes)
    quarter = Zyx(min(pair) for pair in zip(usual, (n // 4 for n in window), strict=True))
    return [usual] if usual == quarter else [usual, quarter]


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
    base: Config,
    candidate: Candidate,
    batch_size: int,
    overlap: Shape,
    window: tuple[float, float],
) -> Config:
    """The base with the planned values."""
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
        inference=dataclasses.replace(base.inference, overlap=overlap),
    )
