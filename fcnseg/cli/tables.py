"""Tables on the terminal, whose numbers are never split over two lines."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 10_000  # columns


def print_table(table: Table) -> None:
    """Prints a table, of lines longer than those of the terminal if its words do not fit them.

    rich would split or shorten words, and half a number is read as another one.

    Args:
        table: The table; columns with `no_wrap` keep their cells on one line, the others wrap
            between words. Their least widths are set.
    """
    console = Console(markup=False)
    options = console.options.update(max_width=_ANY_WIDTH)
    for column in table.columns:
        sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        column.min_width = max(size.maximum if column.no_wrap else size.minimum for size in sizes)
    console.width = max(console.width, Measurement.get(console, options, table).minimum)
    console.print(table)
