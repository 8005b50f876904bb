"""Shows the statistics of a converted dataset: tables on the terminal, and a page with pictures."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from typing import Annotated

import tyro
from rich.console import Console

from fcnseg.cli.command import Location, run_command
from fcnseg.cli.tables import print_table
from fcnseg.errors import DatasetError
from fcnseg.figures.page import check_page_extras
from fcnseg.records import Record, read_dataset_info
from fcnseg.records.damage import find_damage
from fcnseg.storage import files
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

from .dataset_page import dataset_html
from .dataset_tables import tables_of
from .inspected_dataset import InspectedDataset

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Shows the statistics of a dataset of `fcnseg convert`.

    Prints its fingerprint as tables, and writes one page with histograms and with pictures of some
    cases, which show at a glance if scans and labels are right.
    """

    directory: Annotated[Location, tyro.conf.Positional]
    """Folder of records, which may be in an object store, such as s3://bucket/records."""
    output: Location | None = None
    """The page to write; by default inspect.html next to the records."""
    cases: tuple[str, ...] = ("6",)
    """Number of cases to draw, from all over the dataset, or the ids of those to draw."""
    overwrite: bool = False
    """Replace a page that exists already."""
    verify: bool = False
    """Read all records instead, check all checksums, and list the broken files with their cases."""

    def run(self) -> None:
        """Prints the tables and writes the page, or checks all files.

        Raises:
            DatasetError: If the folder is not a finished dataset, or with `verify` a file is
                broken.
            InputError: If a case is not in it, or the page exists already, or its folder does not
                exist.
        """
        if self.verify:
            verify(self.directory)
        else:
            self.show()

    def show(self) -> None:
        """Prints the tables and writes the page: the action of `run` without `verify`."""
        output = self.output or files.join(self.directory, "inspect.html")
        check_free([output], overwrite=self.overwrite)
        check_page_extras()
        dataset = InspectedDataset.open(self.directory)
        check_output_file(output)
        cases = self.drawn(dataset)
        for table in tables_of(dataset):
            print_table(table.for_terminal())
        write_whole(output, dataset_html(dataset, cases))
        logger.info(f"page with pictures: {output}")

    def drawn(self, dataset: InspectedDataset) -> Iterator[Record]:
        """Selects the cases to draw."""
        known = {case.case_id for case in dataset.fingerprint.cases}
        if len(self.cases) == 1 and self.cases[0].isdecimal() and self.cases[0] not in known:
            return dataset.read_spread(int(self.cases[0]))
        return dataset.read_named(self.cases)


def verify(directory: str | os.PathLike[str]) -> None:
    """Reads all records of a dataset and prints the broken files with their cases.

    Raises:
        DatasetError: If the folder is not a finished dataset, or a file is broken.
    """
    info = read_dataset_info(directory)
    shards = [shard for split in info.splits.values() for shard in split.shards]
    found = list(find_damage(directory, info))
    for damage in found:
        lost = ", ".join(damage.cases) or "-"
        line = f"{files.name_of(damage.path)}: {damage.reason}; cases: {lost}"
        Console(markup=False).print(line, soft_wrap=True)
    if found:
        raise DatasetError(f"{len(found)} of {len(shards)} files are broken; first: {found[0]}")
    cases = sum(split.cases for split in info.splits.values())
    logger.info(f"all {len(shards)} files of {directory} are intact: {cases} cases")


def main() -> None:
    """Runs the command line."""
    run_command(Inspect)


if __name__ == "__main__":
    main()
