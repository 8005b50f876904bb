"""The console script `fcnseg COMMAND`, which is also `python -m fcnseg COMMAND`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from fcnseg import __version__
from fcnseg.errors import FcnsegError

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "phantom": ("PhantomCommand", "Writes synthetic abdominal CT scans with labels"),
        "preview": ("PreviewCommand", "Shows patches before and after augmentation"),
    },
    "training": {
        "plan": ("PlanCommand", "Proposes a configuration for a dataset and a memory budget"),
        "summary": ("SummaryCommand", "Prints layers, parameters, cost and training memory"),
        "bench": ("BenchCommand", "Measures training steps and names what bounds them"),
        "train": ("TrainCommand", "Trains a network and keeps the one that validates best"),
    },
    "results": {
        "predict": ("PredictCommand", "Segments CT volumes with a trained network"),
        "evaluate": ("EvaluateCommand", "Scores masks against labels, with a report"),
        "compare": ("CompareCommand", "Compares the evaluations of two runs"),
    },
}
"""By step of the work and by command: the class in the module of that name, and a line of help."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Args:
        argv: Arguments instead of the process's own.
    """
    name, *flags = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
    elif name == "--version":
        sys.stdout.write(f"fcnseg {__version__}\n")
    else:
        classes = {name: entry[0] for group in COMMANDS.values() for name, entry in group.items()}
        if name not in classes:
            sys.stderr.write(f"error: {_unknown(name, list(classes))}\n")
            sys.exit(FcnsegError.exit_status)
        from fcnseg.cli.command import run_command  # tyro imports slowly

        module = importlib.import_module(f"fcnseg.cli.{name}")
        run_command(getattr(module, classes[name]), flags, prog=f"fcnseg {name}")


def usage() -> str:
    """Formats the list of commands."""
    lines = ["usage: fcnseg COMMAND [--help] [flags]"]
    for step, group in COMMANDS.items():
        lines += ["", f"{step}:"]
        lines += [f"  {name:<10}{text}" for name, (_, text) in group.items()]
    return "\n".join(lines) + "\n"


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
    return f"unknown command {name!r}{hint}"
