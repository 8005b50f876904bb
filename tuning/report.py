"""Reports on a search, finished or not: `fcnseg report --help`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from fcnseg.cli.command import run_command
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.cli.tables import print_table
from fcnseg.config import config_to_mapping
from fcnseg.figures.page import check_page_extras, render
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

from .charts import best_over_time, importance_bars, parallel_coordinates
from .importance import comparable, importance
from .tables import format_gib, format_objective, make_table, trials_table
from .trials import (
    LOGS_FOLDER,
    Outcome,
    Progress,
    Search,
    Trial,
    best_trial,
    format_value,
    ranked,
)

REPORT_FILE = "report.html"
HPARAMS_FOLDER = "tensorboard"
RUNG_HEADER = ("bracket", "rung", "until epoch", "trials", "running", "failed", "went on", "best")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Reports on a search at any time: trials, best so far, importance of settings, failures."""

    search: tyro.conf.Positional[Path]
    """Folder of a search, which may be running."""
    output: Path | None = None
    """HTML page to write; by default report.html in that folder, which is written again."""
    hparams: bool = False
    """Write the trials for TensorBoard's HParams too, to the subfolder tensorboard."""
    overwrite: bool = False
    """Replace a page of --output that exists already."""

    def run(self) -> None:
        """Writes the page, and prints the trials and what failed."""
        if self.output is not None:
            check_free([self.output], overwrite=self.overwrite)
        check_page_extras()
        summary = Summary.read(self.search)
        path = self.output or self.search / REPORT_FILE
        check_output_file(path)
        write_whole(path, summary.to_html())
        if self.hparams:
            write_hparams(summary, self.search / HPARAMS_FOLDER)
        for table in summary.tables():
            print_table(table)
        logger.info(f"wrote {path}")


@dataclasses.dataclass(frozen=True)
class Summary:
    """The content of a report.

    Attributes:
        search: What it began with.
        progress: The trials so far.
    """

    search: Search
    progress: Progress

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """Reads the search of a folder."""
        return cls(Search.read(folder), Progress.read(folder))

    @property
    def own(self) -> dict[str, Any]:
        """The base configuration's values of the settings of the space."""
        mapping = config_to_mapping(self.search.config)
        pairs = ((key, key.split(".")) for key in self.search.space)
        return {key: mapping[section][name] for key, (section, name) in pairs}

    @property
    def best(self) -> Trial | None:
        """The best trial that has trained to the end."""
        return best_trial(self.progress.trials, epochs=self.search.config.training.epochs)

    @functools.cached_property
    def importances(self) -> dict[str, float]:
        """Importance of each setting; empty if there are too few trials."""
        return importance(self.progress.trials, self.search.space, self.own)

    @property
    def failed(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.progress.trials if trial.status == "failed"]

    def facts(self) -> list[tuple[str, str]]:
        """Numbers to see first, with their names."""
        trials = self.progress.trials
        count = dict.fromkeys(("completed", "running", "failed"), 0)
        for trial in trials:
            count[trial.status] += 1
        base = next((trial for trial in trials if trial.trial_id == "0"), None)
        return [
            *((name, str(number)) for name, number in count.items()),
            (f"best {self.search.objective}", format_objective(self.best)),
            ("of the base configuration", format_objective(base)),
            ("hours", f"{self.progress.seconds / 3600:.2f}"),
        ]

    def rungs(self) -> list[tuple[str, ...]]:
        """A row per rung of Hyperband."""
        places = {(t.bracket, t.rung) for t in self.progress.trials if t.bracket is not None}
        rows: list[tuple[str, ...]] = []
        for bracket, rung in sorted(places, key=lambda place: (place[0] or 0, place[1])):
            inside = [
                trial
                for trial in self.progress.trials
                if (trial.bracket, trial.rung) == (bracket, rung)
            ]
            above = {t.root for t in self.progress.trials if t.rung == rung + 1}
            rows.append(
                (
                    str(bracket),
                    str(rung),
                    str(inside[0].until_epoch),
                    str(len(inside)),
                    str(sum(trial.status == "running" for trial in inside)),
                    str(sum(trial.status == "failed" for trial in inside)),
                    str(sum(trial.root in above for trial in inside)),
                    format_objective(next(iter(ranked(inside)), None)),
                )
            )
        return rows

    def rows(self) -> list[tuple[str, ...]]:
        """A row per trial, the best first, running ones last."""
        running = [trial for trial in self.progress.trials if trial.outcome is None]
        return [self._row(trial) for trial in (*ranked(self.progress.trials), *running)]

    def _row(self, trial: Trial) -> tuple[str, ...]:
        outcome = trial.outcome or Outcome(None)
        return (
            trial.trial_id,
            *(format_value(trial.settings.get(key, "")) for key in self.search.space),
            str(trial.until_epoch),
            format_objective(trial),
            str(outcome.best_epoch or ""),
            f"{outcome.seconds / 60:.1f}" if trial.outcome else "",
            format_gib(outcome.peak_bytes),
        )

    def failures(self) -> list[tuple[str, str, str, str]]:
        """A row per trial that failed: id, reason, memory, log."""
        outcomes = [(trial, trial.outcome or Outcome(None)) for trial in self.failed]
        return [
            (
                trial.trial_id,
                outcome.error or "",
                format_gib(outcome.peak_bytes),
                f"{LOGS_FOLDER}/{trial.root}.log",
            )
            for trial, outcome in outcomes
        ]

    def charts(self) -> list[tuple[str, Any, str]]:
        """Heading, chart and note of each chart that the trials so far allow."""
        trials, objective = self.progress.trials, self.search.objective
        found: list[tuple[str, Any, str]] = []
        if comparable(trials):
            epochs = self.search.config.training.epochs
            chart = best_over_time(trials, epochs=epochs, objective=objective)
            note = "Filled: trained to the end. Hollow: stopped at a rung. Line: the best so far."
            found.append(("Best so far against time", chart, note))
        if self.importances:
            note = (
                f"Of {len(comparable(trials))} trials of equal length, by a forest of regression"
                " trees; with few trials it is a hint and no more."
            )
            found.append(("Importance of each setting", importance_bars(self.importances), note))
        if len(comparable(trials)) > 1:
            chart = parallel_coordinates(trials, self.search.space, self.own, objective=objective)
            note = (
                "A line per trial of equal length, the best in yellow; choices are in the order of"
                " the space, and a value outside the space is beyond the ends of its axis."
            )
            found.append(("Parallel coordinates", chart, note))
        return found

    def to_html(self) -> str:
        """Renders the page."""
        progress = self.progress
        is_over = progress.ended and all(trial.outcome for trial in progress.trials)
        return render(
            "search.html",
            objective=self.search.objective,
            state=f"Over: {progress.ended}." if is_over else "Not over yet.",
            facts=self.facts(),
            best=self.best,
            charts=self.charts(),
            rung_header=RUNG_HEADER,
            rungs=self.rungs(),
            keys=list(self.search.space),
            trials=self.rows(),
            failures=self.failures(),
        )

    def tables(self) -> list[Table]:
        """Gives the text of the page, and the importances, as tables for a terminal."""
        names, values = zip(*self.facts(), strict=True)
        tables = [
            make_table(names, [values], title="Search"),
            trials_table(self.progress.trials, objective=self.search.objective),
        ]
        shares = [(key, f"{share:.0%}") for key, share in self.importances.items()]
        for title, header, rows in (
            ("Importance of each setting", ("setting", "importance"), shares),
            ("Rungs", RUNG_HEADER, self.rungs()),
            ("Failures", ("trial", "reason", "GiB", "log"), self.failures()),
        ):
            if rows:
                tables.append(make_table(header, rows, title=title))
        return tables


def write_hparams(summary: Summary, folder: Path) -> None:
    """Writes each trial that has ended for TensorBoard's HParams.

    Args:
        summary: Summary of the search.
        folder: Folder for a subfolder per trial; what is in there is replaced.
    """
    load_tensorflow()
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    shutil.rmtree(folder, ignore_errors=True)
    for trial in ranked(summary.progress.trials):
        if trial.objective is None:
            continue
        settings = {**summary.own, **trial.settings}
        shown = {
            key: str(value) if isinstance(value, list) else value
            for key, value in settings.items()
            if value is not None
        }
        with tf.summary.create_file_writer(str(folder / trial.trial_id)).as_default():
            api.hparams(shown, trial_id=trial.trial_id)
            tf.summary.scalar(summary.search.objective, trial.objective, step=trial.until_epoch)


def main() -> None:
    """Runs the command line."""
    run_command(ReportCommand)


if __name__ == "__main__":
    main()
