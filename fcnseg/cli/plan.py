"""Proposes a configuration for a dataset: `fcnseg plan --help`."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Literal

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.config import PRESETS, Config, override
from fcnseg.errors import InputError
from fcnseg.inference.backend import Backend
from fcnseg.planning import Proposal, commented_yaml, propose, propose_in_time
from fcnseg.records import Dataset, DatasetInfo
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

logger = logging.getLogger(__name__)

_UNNAMED = "the configuration given"


@dataclasses.dataclass(frozen=True)
class PlanCommand:
    """Proposes window, patch, batch and network for a dataset and a budget, with reasons.

    The budget is the memory of a training step, or the time of prediction on this CPU, or both.

    Also checks whether the spacing of the records fits their files, or how to convert them again.
    The rules are nnU-Net's; docs/planning.md explains them.
    """

    data: Location
    """Folder of records that `fcnseg convert` wrote, which may be in an object store."""
    _: dataclasses.KW_ONLY
    memory_gib: float | None = None
    """Memory for the tensors of a training step on one device; leave the device 1 GiB beyond it. It
    may be missing with --device: patch and batch are then about those of --config."""
    device: Literal["cpu"] | None = None
    """Device of prediction whose time is limited: the CPU of this machine, on which candidates are
    measured."""
    seconds_per_case: float | None = None
    """With --device: largest time of the prediction of the median case, from its file to its
    mask."""
    backend: Backend | None = None
    """With --device: runtime that computes the windows, by default tensorflow."""
    output: Path
    """YAML file for `--config` of `fcnseg train`."""
    config: ConfigFlags = PRESETS["fcn_m"]
    """Base configuration; each flag overrides one of its values. Its settings are kept where data
    and budget do not decide; the channels at its top level are the maximum."""
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
            InputError: If the output exists already, its folder does not exist, or a flag is
                missing or does not apply.
            MissingExtraError: If what computes the windows is not installed.
        """
        self._check_budgets()
        check_output_file(self.output)
        check_free([self.output], overwrite=self.overwrite)
        base = self.config
        name = next((name for name, preset in PRESETS.items() if preset == base), _UNNAMED)
        if self.precision is not None:
            base = override(base, {"training.precision": self.precision})
        info = Dataset.open(self.data).info
        plan = self._propose(info, base, name)
        reasons = dict(plan.reasons)
        if self.precision is not None:
            reasons["training.precision"] = "asked for by --precision"
        write_whole(self.output, commented_yaml(plan.config, reasons, notes=plan.notes))
        for note in plan.notes:
            logger.info(note)
        logger.info(f"plan: {self.output}")

    def _check_budgets(self) -> None:
        """Refuses budgets that are no amounts, and flags that are incomplete or do not apply."""
        for name in ("memory_gib", "seconds_per_case"):
            budget = getattr(self, name)
            if budget is not None and not 0 < budget < math.inf:
                raise InputError(f"{name} must be positive and finite, got {budget:g}")
        if self.device is None:
            for name in ("seconds_per_case", "backend"):
                value = getattr(self, name)
                if value is not None:
                    raise InputError(f"{name} applies to device cpu alone, got {value}")
        elif self.seconds_per_case is None:
            raise InputError("seconds_per_case must be given where device is cpu")

    def _propose(self, info: DatasetInfo, base: Config, name: str) -> Proposal:
        if self.seconds_per_case is None:
            if self.memory_gib is None:
                raise InputError("memory_gib must be given, unless device is cpu")
            return propose(info, base, base_name=name, memory_gib=self.memory_gib)
        # --help and mistakes in flags need not wait for this.
        from fcnseg.cli.stopwatch import CpuStopwatch

        return propose_in_time(
            info,
            base,
            base_name=name,
            seconds_per_case=self.seconds_per_case,
            stopwatch=CpuStopwatch(info, backend=self.backend or "tensorflow"),
            memory_gib=self.memory_gib,
        )
