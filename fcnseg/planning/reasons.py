"""The reasons of a plan: one for each value, and general notes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fcnseg.config import Config, config_to_mapping
from fcnseg.planning.budget import GIB, MIN_BATCH, MOST_OF_DATASET
from fcnseg.planning.candidates import MAX_FILTERS
from fcnseg.planning.facts import PlanningFacts
from fcnseg.planning.spacing import coarse_spacing, spacing_advice
from fcnseg.planning.time_budget import CaseTime, TimedConfig, two_digits
from fcnseg.volumes import Shape, Triple, Zyx

_COVERS_ENOUGH = 0.25  # share of the median case; if a patch has less, nnU-Net adds a coarse stage


def reasons_of(
    config: Config, base: Config, facts: PlanningFacts, *, base_name: str
) -> dict[str, str]:
    """Gives the reason, by dotted key, of each planned value and each other non-default one.

    Args:
        config: The plan.
        base: The base configuration.
        facts: Facts of the dataset.
        base_name: Name of the base in the reasons.
    """
    defaults = config_to_mapping(Config())
    reasons = {
        f"{section}.{key}": f"as in {base_name}"
        for section, values in config_to_mapping(config).items()
        for key, value in values.items()
        if value != defaults[section][key]
    }
    planned = _network(config, base, facts, base_name) | _patches(config, base, facts)
    return reasons | planned


def reasons_in_time(
    timed: TimedConfig,
    facts: PlanningFacts,
    *,
    base_name: str,
    is_limited: bool,
) -> dict[str, str]:
    """Gives the reasons of those values, by dotted key, that a time budget decides.

    Args:
        timed: The plan, and what was too slow.
        facts: Facts of the dataset.
        base_name: Name of the base in the reasons.
        is_limited: True if the memory of a training step is limited too.
    """
    model, overlap = timed.config.model, timed.config.inference.overlap
    top = model.filters[0]
    reasons = {"inference.overlap": f"that part of a window which it is in {base_name}"}
    for config, seconds in timed.slower:  # the last is the smallest
        takes = f"a case takes {two_digits(seconds)} s or more"
        if config.model.filters[0] > top:
            reasons["model.filters"] = (
                f"{top} at the top, doubled each level, at most {MAX_FILTERS} (nnU-Net); with"
                f" {config.model.filters[0]} {takes}"
            )
        elif config.inference.overlap != overlap:
            reasons["inference.overlap"] = (
                f"a quarter of a window; with that of {base_name} {takes}"
            )
    if not is_limited:
        reasons["patches.batch_size"] = f"as in {base_name}, as no memory was given"
        reasons["patches.size"] = (
            f"about as many voxels as in {base_name}: a cube in mm, shortened along the axis that"
            f" covers most of the median case, {Zyx(facts.shape):d} (nnU-Net)"
        )
    return reasons


def memory_note(training_bytes: int, *, memory_gib: float | None) -> str:
    """Remarks on the memory of a training step, with the budget if there is one."""
    budget = "" if memory_gib is None else f" of {memory_gib:g} GiB"
    return (
        f"Memory: a training step takes about {training_bytes / GIB:.2f} GiB{budget} on each"
        " device, beside what TensorFlow takes for itself."
    )


def time_note(time: CaseTime, seconds_per_case: float) -> str:
    """Remarks on the time of prediction."""
    return (
        f"Time: prediction of the median case takes about {two_digits(time.seconds)} s of"
        f" {seconds_per_case:g} s, as measured on the CPU of this plan: {time.windows} windows of"
        f" {two_digits(time.window_seconds)} s, and {two_digits(time.other_seconds)} s for all"
        " else, from its file to its mask. Windows of air alone are skipped, which may save some."
    )


def notes_of(config: Config, facts: PlanningFacts, *, budget: Sequence[str]) -> tuple[str, ...]:
    """Gives remarks beyond single values, those on the budget among them."""
    cover = _cover(config.patches.size, facts.shape)
    notes = [
        f"Planned for {facts.cases} cases to train on; the median has {Zyx(facts.shape):d} voxels"
        f" (z, y, x) of {Zyx(facts.spacing_mm):g} mm.",
        *(f"Splits: {small}." for small in facts.small_splits),
        f"Spacing: the files ask for {Zyx(facts.target_spacing_mm):g} mm;"
        f" {spacing_advice(facts.spacing_mm, facts.target_spacing_mm)}.",
        *budget,
        f"A patch covers {cover:.0%} of the median case.",
    ]
    if cover < _COVERS_ENOUGH:
        coarse = coarse_spacing(facts.spacing_mm, cover, wanted=_COVERS_ENOUGH)
        notes[-1] += (
            f" Where organs are mistaken for one another, a coarse stage sees more: with records of"
            f" --spacing_mm {_flags(coarse)} such a patch covers {_COVERS_ENOUGH:.0%}."
        )
    return tuple(notes)


def _network(config: Config, base: Config, facts: PlanningFacts, base_name: str) -> dict[str, str]:
    model, at = config.model, f"at {Zyx(facts.spacing_mm):g} mm"
    reasons = {
        "model.hu_window": "0.5 % and 99.5 % quantiles of the HU of"
        f" {facts.organ_voxels:,} voxels of organs; what lies beyond is clipped",
        "model.strides": f"{at} an axis is halved while 4 voxels are left and it is less than twice"
        " as coarse as the finest (nnU-Net)",
        "model.kernels": f"{at} an axis has kernel 1 until the finest has come within twice its"
        " spacing (nnU-Net)",
        "model.filters": _filters(model.filters, base.model.filters[0], base_name),
    }
    if model.residual_blocks:
        reasons["model.residual_blocks"] = f"as in {base_name}; the last repeated for lower levels"
    if model.deep_supervision:
        reasons["model.deep_supervision"] = "every level of the decoder below the top has a loss"
    return reasons


def _filters(filters: Sequence[int], most: int, base_name: str) -> str:
    doubled = f"doubled each level, at most {MAX_FILTERS} (nnU-Net)"
    if filters[0] == most:
        return f"{most} at the top as in {base_name}, {doubled}"
    return (
        f"{filters[0]} at the top, {doubled}; with the {most} of {base_name} a patch that fits the"
        " budget would be too small"
    )


def _patches(config: Config, base: Config, facts: PlanningFacts) -> dict[str, str]:
    batch_size = config.patches.batch_size
    share = batch_size * math.prod(config.patches.size) / facts.voxels
    more = (batch_size + 1) / batch_size * share
    if batch_size == MIN_BATCH:
        batch = "the least; memory goes to the patch first (nnU-Net)"
    elif more > MOST_OF_DATASET:
        batch = f"{share:.1%} of the voxels to train on; at most {MOST_OF_DATASET:.0%} (nnU-Net)"
    else:
        batch = "as many as fit the budget"
    reasons = {
        "patches.size": f"the largest that fits with {MIN_BATCH} a step: at most a cube in mm of"
        " 256^3 voxels, shortened along the axis that covers most of the median case,"
        f" {Zyx(facts.shape):d} (nnU-Net)",
        "patches.batch_size": batch,
        "augmentation.gamma_window": "that of the network's first layer",
        "inference.overlap": "half a window (nnU-Net)",
    }
    if config.patches.shuffle_buffer != base.patches.shuffle_buffer:
        reasons["patches.shuffle_buffer"] = "as many as fit 2 GiB of host memory, three blocks held"
    return reasons


def _cover(patch: Shape, shape: Shape) -> float:
    """Share of the median case that a patch covers."""
    return math.prod(min(pair) / pair[1] for pair in zip(patch, shape, strict=True))


def _flags(spacing: Triple) -> str:
    return " ".join(f"{mm:g}" for mm in spacing)
