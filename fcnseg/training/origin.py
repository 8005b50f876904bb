"""What a run learns from, and how it is known again."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from fcnseg.run_folder import RunManifest
from fcnseg.training.dataset import dataset_digest


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run learns from.

    Attributes:
        data: Folder of a finished dataset.
        init_from: Folder of the run whose weights are where this one starts; None if they are
            drawn.
    """

    data: Path
    init_from: Path | None = None

    @classmethod
    def of(
        cls, data: str | os.PathLike[str], *, init_from: str | os.PathLike[str] | None = None
    ) -> Origin:
        """The paths made absolute where they are to be known again."""
        return cls(Path(data), None if init_from is None else Path(init_from).absolute())

    def identity(self) -> dict[str, Any]:
        """What must be the same when the run goes on, by name."""
        return {
            "data": dataset_digest(self.data),
            "init_from": None if self.init_from is None else str(self.init_from),
        }


def identity_of(manifest: RunManifest) -> dict[str, Any]:
    """The `Origin.identity` of a finished run."""
    return {"data": manifest.data_fingerprint, "init_from": manifest.init_from}
