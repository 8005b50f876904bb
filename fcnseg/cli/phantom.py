"""Writes phantom scans and labels: `fcnseg phantom --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from fcnseg.cli.progress import progress_of
from fcnseg.testing.phantom.writing import write_phantoms


@dataclasses.dataclass(frozen=True)
class PhantomCommand:
    """Writes synthetic abdominal CT scans with labels of seven organs."""

    cases: int
    """Number of scans, each of another patient."""
    output: Path
    """Folder for images/, labels/, cases.csv and label_map.yaml; must be empty or new."""
    seed: int = 0
    """Seed of all random draws; a case depends only on it and on its own number."""
    variety: float = 1.0
    """Variation between patients, 1 as usual; up to 3 in anatomy, contrast phase, noise, position
    and slice thickness, and above 1 some have no gallbladder."""
    overwrite: bool = False
    """Replace phantoms that are in the folder already."""

    def run(self) -> None:
        """Writes the phantoms, showing progress."""
        cases = write_phantoms(
            self.cases,
            self.output,
            seed=self.seed,
            variety=self.variety,
            overwrite=self.overwrite,
        )
        for _ in progress_of(cases, description="phantoms", total=self.cases):
            pass
        logging.getLogger(__name__).info(f"{self.cases} phantoms are in {self.output}")
