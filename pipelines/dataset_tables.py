"""The manifest of a dataset as tables, the same for the terminal and for the page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from rich.table import Table as RichTable

from fcnseg.codes import MEANINGS
from fcnseg.conversion.rejects import Reject
from fcnseg.records.fingerprint import Fingerprint, HuStatistics, Quantiles
from fcnseg.volumes import Zyx

from .inspected_dataset import InspectedDataset

WORDY = ("meaning", "first case")
"""Headings of columns of text."""

_SPREAD = ("min", "5 %", "median", "95 %", "max")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in plain text; its first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def for_terminal(self) -> RichTable:
        """Makes the table that rich prints."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for index, heading in enumerate(self.header):
            wordy = index == 0 or heading in WORDY
            table.add_column(heading, justify="left" if wordy else "right", no_wrap=not wordy)
        for row in self.rows:
            table.add_row(*row)
        return table


def tables_of(dataset: InspectedDataset) -> list[Table]:
    """Makes all tables but that of the cases; rejects and warnings only if there are any."""
    fingerprint = dataset.fingerprint
    tables = [splits_table(dataset), grid_table(fingerprint), hu_table(fingerprint)]
    if dataset.organs:
        tables.append(class_table(fingerprint))
    if dataset.rejects:
        tables.append(reject_table(dataset.rejects))
    if fingerprint.warnings:
        tables.append(warning_table(fingerprint))
    return tables


def splits_table(dataset: InspectedDataset) -> Table:
    """Makes a table with a row per split."""
    rows = []
    for name, split in dataset.info.splits.items():
        megabytes = sum(shard.bytes for shard in split.shards) / 1e6
        rows.append((name, str(split.cases), str(len(split.shards)), f"{megabytes:,.1f}"))
    return Table("Splits", ("split", "cases", "files", "MB"), tuple(rows))


def grid_table(fingerprint: Fingerprint) -> Table:
    """Tabulates the distribution of the files' grids."""
    sides = ("z", "y", "x")
    spacings, sizes = fingerprint.source_spacing_mm, fingerprint.source_shape
    rows = [
        *(
            (f"spacing {s} (mm)", *_spread(q, "{:.2f}"))
            for s, q in zip(sides, spacings, strict=True)
        ),
        *((f"size {s} (voxels)", *_spread(q, "{:.0f}")) for s, q in zip(sides, sizes, strict=True)),
    ]
    return Table("Files: spacing and size", ("of the cases", *_SPREAD), tuple(rows))


def hu_table(fingerprint: Fingerprint) -> Table:
    """Tabulates HU of all voxels, and of the organs'."""
    header = ("HU", "mean", "std. dev.", "min", "0.5 %", "5 %", "median", "95 %", "99.5 %", "max")
    rows = [("all voxels", *_hu(fingerprint.hu))]
    if fingerprint.foreground_hu is not None:
        rows.append(("organs", *_hu(fingerprint.foreground_hu)))
    return Table("HU", header, tuple(rows))


def class_table(fingerprint: Fingerprint) -> Table:
    """Tabulates frequency and volume of each organ."""
    header = ("class", "cases", "occurrence", "voxels", *(f"{name} (ml)" for name in _SPREAD))
    rows = []
    for organ in fingerprint.classes[1:]:
        volumes = ("-",) * len(_SPREAD)
        if organ.volume_ml is not None:
            volumes = _spread(organ.volume_ml, "{:,.1f}")
        occurrence = f"{organ.cases / len(fingerprint.cases):.0%}"
        rows.append((organ.name, str(organ.cases), occurrence, f"{organ.voxels:,}", *volumes))
    return Table("Classes", header, tuple(rows))


def reject_table(rejects: Sequence[Reject]) -> Table:
    """Tabulates the number of rejected cases by reason."""
    counts = Counter(reject.code for reject in rejects)
    first = {reject.code: reject.case_id for reject in reversed(rejects)}
    rows = [
        (code, str(count), MEANINGS.get(code, ""), first[code])
        for code, count in counts.most_common()
    ]
    return Table("Rejected cases", ("code", "cases", "meaning", "first case"), tuple(rows))


def warning_table(fingerprint: Fingerprint) -> Table:
    """Tabulates the number of converted cases with each warning."""
    first = {
        finding.code: case.case_id
        for case in reversed(fingerprint.cases)
        for finding in case.warnings
    }
    counts = Counter(fingerprint.warnings).most_common()
    rows = [(code, str(count), MEANINGS.get(code, ""), first[code]) for code, count in counts]
    return Table("Warnings", ("code", "cases", "meaning", "first case"), tuple(rows))


def case_table(dataset: InspectedDataset) -> Table:
    """Makes a table with a row per case."""
    organs = dataset.organs
    header = (
        "case",
        "split",
        "orientation",
        "spacing (mm)",
        "size",
        *(f"{o} (ml)" for o in organs),
    )
    rows = [
        (
            case.case_id,
            case.split,
            case.orientation,
            f"{Zyx(case.source_spacing_mm):.2f}",
            f"{Zyx(case.source_shape):d}",
            *(
                f"{voxels * dataset.voxel_ml:,.1f}"
                for voxels in case.class_voxels[1 : len(organs) + 1]
            ),
            ", ".join(finding.code for finding in case.warnings),
        )
        for case in dataset.fingerprint.cases
    ]
    return Table("Cases", (*header, "warnings"), tuple(rows))


def _spread(quantiles: Quantiles, form: str) -> tuple[str, ...]:
    row = (quantiles.minimum, quantiles.p05, quantiles.median, quantiles.p95, quantiles.maximum)
    return tuple(map(form.format, row))


def _hu(statistics: HuStatistics) -> tuple[str, ...]:
    spread = statistics.quantiles
    values = (spread.minimum, spread.p00_5, spread.p05, spread.median, spread.p95, spread.p99_5)
    row = (statistics.mean, statistics.std, *values, spread.maximum)
    return tuple(f"{value:,.0f}" for value in row)
