"""Compares the evaluations of two runs: `fcnseg compare --help`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fcnseg.cli.tables import print_table
from fcnseg.evaluation import METRICS, Comparison, Evaluation, compare
from fcnseg.evaluation.comparison import COMPARED
from fcnseg.figures.page import check_page_extras
from fcnseg.storage.whole_file import check_free, make_folder, write_whole

_SUFFIXES = ("html", "csv", "json")


@dataclasses.dataclass(frozen=True)
class CompareCommand:
    """Compares two runs case by case: differences, and a paired test for each organ."""

    first: Path
    """Folder of the first evaluation, written by fcnseg evaluate: the baseline."""
    second: Path
    """Folder of the second evaluation; differences are second minus first."""
    output: Path
    """Folder for comparison.html, comparison.json and comparison.csv."""
    overwrite: bool = False
    """Replace a comparison that exists already."""

    def run(self) -> None:
        """Compares and reports; `comparison.json` is written last."""
        check_page_extras()
        html, csv, json = (self.output / f"comparison.{suffix}" for suffix in _SUFFIXES)
        check_free((html, csv, json), overwrite=self.overwrite)
        runs = [Evaluation.read(folder) for folder in (self.first, self.second)]
        comparison = compare(*runs, names=(str(self.first), str(self.second)))
        page, table = comparison.to_html(), comparison.to_csv()
        make_folder(self.output, argument="output")
        json.unlink(missing_ok=True)  # if it exists, the other files belong to it
        write_whole(html, page)
        write_whole(csv, table)
        write_whole(json, comparison.to_json())
        print_table(difference_table(comparison))
        logging.getLogger(__name__).info(f"wrote {html}")


def difference_table(comparison: Comparison) -> Table:
    """Formats a row per organ: mean differences, each with its p value corrected for all organs."""
    cases = f"{len(comparison.case_ids)} cases in both"
    table = Table(title=f"second - first, {cases}, p by Holm", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("organ")
    for name in COMPARED:
        table.add_column(METRICS[name].heading, justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    for organ in comparison.of(COMPARED[0]):
        row = [organ]
        for name in COMPARED:
            p_value = comparison.p_holm(name).get(organ)
            row.append(METRICS[name].format(comparison.of(name)[organ].mean, signed=True))
            row.append("-" if p_value is None else f"{p_value:.3f}")
        table.add_row(*row)
    return table
