"""Tables of a search for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .trials import Trial, format_settings, ranked


def trials_table(trials: Sequence[Trial], *, objective: str) -> Table:
    """Formats a row per trial: the best first, then failed ones, then running ones."""
    running = [trial for trial in trials if trial.outcome is None]
    header = ("trial", "settings", "epochs", objective, "best epoch", "minutes", "GiB")
    rows = [_row(trial) for trial in (*ranked(trials), *running)]
    return make_table(header, rows, title="Trials")


def _row(trial: Trial) -> tuple[str, ...]:
    found = trial.outcome
    return (
        trial.trial_id,
        format_settings(trial.settings),
        str(trial.until_epoch),
        format_objective(trial),
        "" if found is None else str(found.best_epoch or ""),
        "" if found is None else f"{found.seconds / 60:.1f}",
        "" if found is None else format_gib(found.peak_bytes),
    )


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> Table:
    """Makes a table whose cells are wrapped between words."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def format_objective(trial: Trial | None) -> str:
    """Formats the objective of a trial, or its state."""
    if trial is None:
        return "-"
    return trial.status if trial.objective is None else f"{trial.objective:.4f}"


def format_gib(peak_bytes: int | None) -> str:
    """Formats a peak memory in GiB; empty if unknown."""
    return "" if peak_bytes is None else f"{peak_bytes / 2**30:.2f}"
