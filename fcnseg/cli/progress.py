"""Progress bars on a terminal; none elsewhere, as in the log of a job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track

T = TypeVar("T")


def progress_of(items: Iterable[T], *, description: str, total: int) -> Iterable[T]:
    """Passes items on, and shows how many of them are done.

    Args:
        items: What the caller works on, or the results of work as they come.
        description: Plural noun for the items, before the bar.
        total: Number of items.
    """
    console = Console(stderr=True)
    return track(
        items,
        description,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def progress_of_tasks() -> Progress:
    """Makes a bar for each of several tasks that run at the same time."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
