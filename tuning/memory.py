"""The memory that a trial would need, beside the memory that there is."""

from __future__ import annotations

import os
from pathlib import Path

from fcnseg.config import Config
from fcnseg.networks.cost import model_summary

# Limits of the container that this process is in, by version of Linux's control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def needed_bytes(config: Config, *, num_classes: int) -> int:
    """Estimates the memory of a training step, as `fcnseg summary` does."""
    summary = model_summary(
        config.model,
        num_classes=num_classes,
        patch_size=config.patches.size,
        batch_size=config.patches.batch_size,
        precision=config.training.precision,
    )
    return summary.training_bytes


def host_bytes() -> int:
    """The memory of this machine, or of the container if that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in map(Path, _LIMITS):
        text = limit.read_text().strip() if limit.exists() else ""
        found += [int(text)] if text.isdecimal() else []
    return min(found)


def refusal(needed: int, available: int) -> str | None:
    """Says why a trial is not begun; None if it may fit.

    Only what is hopeless is refused: the estimate is within a third of what presets take.

    >>> refusal(40 * 2**30, 24 * 2**30)
    'it needs about 40.0 GiB of memory, of 24.0 GiB that there are'
    >>> refusal(25 * 2**30, 24 * 2**30)
    """
    if needed <= available * 1.3:
        return None
    return (
        f"it needs about {needed / 2**30:.1f} GiB of memory, of {available / 2**30:.1f} GiB that"
        " there are"
    )
