"""Proposes a configuration for a dataset: `fcnseg plan --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Literal

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.config import PRESETS, override
from fcnseg.planning import commented_yaml, propose
from fcnseg.records import Dataset
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

logger = logging.getLogger(__name__)

_UNNAMED = "the configuration given"


@dataclasses.dataclass(frozen=True)
class PlanCommand:
    """Proposes window, patch, batch and network for a dataset and a memory budget, with reasons.

    Also checks whether the spacing of the records fits their files, or how to convert them again.
    The rules are nnU-Net's; docs/planning.md explains them.
    """

    data: Location
    """Folder of records that `fcnseg convert` wrote, which may be in an object store."""
    memory_gib: float
    """Memory for the tensors of a training step on one device; leave the device 1 GiB beyond it."""
    output: Path
    """YAML file for `--config` of `fcnseg train`."""
    config: ConfigFlags = PRESETS["fcn_m"]
    """Base configuration; each flag overrides one of its values. Its settings are kept where data
    and memory do not decide; the channels at its top level are the maximum."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] | None = None
    """Precision of training, instead of the configuration's; mixed precision takes about half the
    memory."""
    overwrite: bool = False
    """Replace a plan that exists already."""

    def run(self) -> None:
        """Writes the plan and logs its warnings.

        Raises:
            DatasetError: If the folder is no finished dataset with labels and a fingerprint.
            ConfigError: If the budget is too small, or no network can be planned from `config`.
            InputError: If the output exists already, or its folder does not exist.
        """
        check_output_file(self.output)
        check_free([self.output], overwrite=self.overwrite)
        base = self.config
        name = next((name for name, preset in PRESETS.items() if preset == base), _UNNAMED)
        if self.precision is not None:
            base = override(base, {"training.precision": self.precision})
        info = Dataset.open(self.data).info
        plan = propose(info, base, base_name=name, memory_gib=self.memory_gib)
        reasons = dict(plan.reasons)
        if self.precision is not None:
            reasons["training.precision"] = "asked for by --precision"
        write_whole(self.output, commented_yaml(plan.config, reasons, notes=plan.notes))
        for note in plan.notes:
            logger.info(note)
        logger.info(f"plan: {self.output}")
