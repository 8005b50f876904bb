"""Shows the cost of a network before it is built: `fcnseg summary --help`."""

from __future__ import annotations

import dataclasses
import math
import sys

from fcnseg.cli.command import ConfigFlags
from fcnseg.errors import ConfigError
from fcnseg.networks import model_summary, plan_model


@dataclasses.dataclass(frozen=True)
class SummaryCommand:
    """Prints layers, parameters, multiply-adds, receptive field and training memory.

    Patch, batch and precision are those of the configuration. With `--spacing_mm`, strides and
    kernels are first planned for slices of that thickness, and the matching flags for `fcnseg
    train` are printed.
    """

    config: ConfigFlags
    """Configuration; each flag overrides one of its values."""
    num_classes: int = 8
    """Classes, background included."""
    spacing_mm: tuple[float, float, float] | None = None
    """Spacing (z, y, x) of the records, to plan strides and kernels for."""

    def run(self) -> None:
        """Prints the summary."""
        if self.num_classes < 2:
            raise ConfigError(
                f"num_classes must be at least 2, background included, got {self.num_classes}"
            )
        model, patches = self.config.model, self.config.patches
        if self.spacing_mm is not None:
            if not all(0 < size < math.inf for size in self.spacing_mm):
                raise ConfigError(
                    f"spacing_mm must be three positive numbers, got {self.spacing_mm}"
                )
            model = plan_model(model, self.spacing_mm, patches.size)
        summary = model_summary(
            model,
            num_classes=self.num_classes,
            patch_size=patches.size,
            batch_size=patches.batch_size,
            precision=self.config.training.precision,
        )
        sys.stdout.write(f"{summary}\n")
        if self.spacing_mm is not None:
            sys.stdout.write(f"flags            {_flags(self.config.model, model)}\n")


def _flags(before: object, after: object) -> str:
    """Flags that change one section `model` into the other."""
    flags = []
    for field in dataclasses.fields(after):  # type: ignore[arg-type]
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            flags.append(f"--model.{field.name} {' '.join(map(str, _flat(value)))}")
    return " ".join(flags)


def _flat(value: object) -> list[object]:
    if not isinstance(value, tuple):
        return [value]
    return [leaf for each in value for leaf in _flat(each)]
