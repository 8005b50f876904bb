"""Serves models as TensorFlow Serving does, on this machine: `fcnseg serve --help`.

It accepts the real server's flags, implements its gRPC and REST interfaces, and runs models in the
same runtime, for development and for machines without the real server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata

from fcnseg.cli.command import run_command, run_or_exit
from fcnseg.cli.quiet import load_tensorflow, quiet_stderr
from fcnseg.extras import naming_extras

from .flags import for_command
from .options import ServerOptions, Switch


@dataclasses.dataclass(frozen=True)
class ServerCommand(ServerOptions):
    """Serves the newest version of a model over gRPC and REST until it is stopped.

    Takes all flags of TensorFlow Serving, in its form --flag=value too. Those not below are ignored
    with a warning, or refused with a reason (docs/local_server.md).
    """

    version: Switch = False
    """Print the versions and end."""

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        load_tensorflow()
        if self.version:
            sys.stdout.write(_versions())
            return
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecations of the runtime
        with quiet_stderr(), naming_extras():
            from .local_server import LocalServer  # --help need not wait for it
        stopped = threading.Event()
        with _setting_on_signals(stopped), LocalServer(self, stopped=stopped) as server:
            if not stopped.is_set():
                sys.stdout.write(f"{server}\n")
                sys.stdout.flush()
            stopped.wait()


@contextlib.contextmanager
def _setting_on_signals(stopped: threading.Event) -> Iterator[None]:
    """Sets an event on SIGTERM and SIGINT, whose handlers are restored afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _versions() -> str:
    import tensorflow as tf

    fcnseg = metadata.version("fcnseg")
    return f"fcnseg: {fcnseg}\nTensorFlow Library: {tf.version.VERSION}\n"


def serve(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    flags: list[str] = run_or_exit(lambda: for_command(given))
    run_command(ServerCommand, flags, prog=prog)


def main() -> None:
    """Runs the command."""
    serve()


if __name__ == "__main__":
    main()
