"""Tables on the terminal, whose numbers are never split over two lines."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 10_000  # columns


def print_table(table: Table) -> None:
    """Prints a table, of lines longer than those of the terminal if its words do not fit them.

    rich would split or shorten words, or leave out a column, and half a number is read as another.

    Args:
        table: The table; columns with `no_wrap` keep their cells on one line, the others wrap
            between words. Their widths are set: what room there is goes to the first columns.
    """
    console = Console(markup=False)
    options = console.options.update(max_width=_ANY_WIDTH)
    most = []
    for column in table.columns:
        sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        most.append(max(size.maximum for size in sizes))
        column.width = most[-1] if column.no_wrap else max(size.minimum for size in sizes)
    console.width = max(console.width, Measurement.get(console, options, table).minimum)
    room = console.width - Measurement.get(console, options, table).minimum
    for column, width in zip(table.columns, most, strict=True):
        added = min(room, width - (column.width or 0))
        column.width, room = (column.width or 0) + added, room - added
    console.print(table)
