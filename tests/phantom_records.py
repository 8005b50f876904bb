"""Phantoms, and the records of them."""

from __future__ import annotations

from pathlib import Path

from fcnseg.cli.phantom import PhantomCommand
from pipelines.convert_ct import ConvertCt


def make_phantom_records(folder: Path, *, cases: int, **fractions: float) -> Path:
    """Writes phantoms into `scans` and their records at 4 mm into `records`, whose path it gives.

    Args:
        folder: Folder of both.
        cases: Number of phantoms.
        fractions: Shares of the splits, as `ConvertCt` names them.
    """
    PhantomCommand(output=folder / "scans", cases=cases, seed=0).run()
    ConvertCt(
        cases=str(folder / "scans" / "cases.csv"),
        label_map=str(folder / "scans" / "label_map.yaml"),
        output=str(folder / "records"),
        spacing_mm=(4.0, 4.0, 4.0),
        **fractions,
    ).run([])
    return folder / "records"
