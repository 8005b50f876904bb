"""The console script `fcnseg COMMAND`, which is also `python -m fcnseg COMMAND`."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from fcnseg import __version__
from fcnseg.cli.quiet import quiet_stderr
from fcnseg.errors import FcnsegError
from fcnseg.extras import naming_extras


class Entry(NamedTuple):
    """A command.

    Attributes:
        module: Its module.
        work: In there, the dataclass of the command, or a function of its arguments and the
            command's name in the help text.
        help: One line.
        command: In there, the dataclass of the command where `work` is a function.
    """

    module: str
    work: str
    help: str
    command: str = ""


COMMANDS: dict[str, dict[str, Entry]] = {
    "data": {
        "convert": Entry(
            "fcnseg.jobs.pipelines.convert_ct",
            "main",
            "Converts scans and labels to records",
            command="ConvertCt",
        ),
        "flink": Entry(
            "fcnseg.jobs.pipelines.flink.__main__", "main", "Converts on Apache Flink", "Flink"
        ),
        "inspect": Entry(
            "fcnseg.jobs.pipelines.inspect", "Inspect", "Shows the statistics of a dataset"
        ),
        "phantom": Entry(
            "fcnseg.cli.phantom",
            "PhantomCommand",
            "Writes synthetic abdominal CT scans with labels",
        ),
        "preview": Entry(
            "fcnseg.cli.preview",
            "PreviewCommand",
            "Shows patches before and after augmentation",
        ),
    },
    "training": {
        "plan": Entry(
            "fcnseg.cli.plan",
            "PlanCommand",
            "Proposes a configuration for a dataset and a memory budget",
        ),
        "summary": Entry(
            "fcnseg.cli.summary",
            "SummaryCommand",
            "Prints layers, parameters, cost and training memory",
        ),
        "bench": Entry(
            "fcnseg.cli.bench",
            "BenchCommand",
            "Measures training steps and names what bounds them",
        ),
        "search": Entry(
            "fcnseg.jobs.tuning.search",
            "SearchCommand",
            "Searches for a configuration with high validation Dice",
        ),
        "report": Entry(
            "fcnseg.jobs.tuning.report", "ReportCommand", "Reports on a search, finished or not"
        ),
        "train": Entry(
            "fcnseg.cli.train",
            "TrainCommand",
            "Trains a network and keeps the one that validates best",
        ),
    },
    "results": {
        "predict": Entry(
            "fcnseg.cli.predict", "PredictCommand", "Segments CT volumes with a trained network"
        ),
        "evaluate": Entry(
            "fcnseg.cli.evaluate", "EvaluateCommand", "Scores masks against labels, with a report"
        ),
        "compare": Entry(
            "fcnseg.cli.compare", "CompareCommand", "Compares the evaluations of two runs"
        ),
    },
    "serving": {
        "export": Entry(
            "fcnseg.jobs.serving.export",
            "ExportCommand",
            "Publishes a trained network for TensorFlow Serving",
        ),
        "rollback": Entry(
            "fcnseg.jobs.serving.rollback",
            "RollbackCommand",
            "Withdraws the newest version of a served model",
        ),
        "serve": Entry(
            "fcnseg.jobs.serving.server",
            "serve",
            "Serves a model as TensorFlow Serving does, on this machine",
            command="ServerCommand",
        ),
        "segment": Entry(
            "fcnseg.jobs.serving.client",
            "ClientCommand",
            "Segments CT volumes with a served model",
        ),
    },
    "shell": {
        "completion": Entry(
            "fcnseg.cli.completion",
            "CompletionCommand",
            "Writes a script that completes commands and flags",
        ),
    },
}
"""The commands by step of the work and by name."""


def entries() -> dict[str, Entry]:
    """All commands by name."""
    return {name: entry for group in COMMANDS.values() for name, entry in group.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Args:
        argv: Arguments instead of the process's own.
    """
    try:
        _main(*(list(sys.argv[1:] if argv is None else argv) or ["--help"]))
    except KeyboardInterrupt:  # while modules are imported; a command at work handles it itself
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)


def _main(name: str, *flags: str) -> None:
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
    elif name == "--version":
        sys.stdout.write(f"fcnseg {__version__}\n")
    else:
        known = entries()
        if name not in known:
            sys.stderr.write(f"error: {_unknown(name, list(known))}\n")
            sys.exit(FcnsegError.exit_status)
        _run(known[name], flags, prog=f"fcnseg {name}")


def _run(entry: Entry, flags: Sequence[str], *, prog: str) -> None:
    from fcnseg.cli.command import run_command, run_or_exit  # tyro imports slowly

    def load() -> Any:
        with quiet_stderr(), naming_extras():
            return getattr(importlib.import_module(entry.module), entry.work)

    command = run_or_exit(load)
    if isinstance(command, type):
        run_command(command, flags, prog=prog)
    else:
        command(flags, prog=prog)


def usage() -> str:
    """Formats the list of commands."""
    lines = ["usage: fcnseg COMMAND [--help] [flags]"]
    for step, group in COMMANDS.items():
        lines += ["", f"{step}:"]
        lines += [f"  {name:<12}{entry.help}" for name, entry in group.items()]
    return "\n".join(lines) + "\n"


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
    return f"unknown command {name!r}{hint}"
