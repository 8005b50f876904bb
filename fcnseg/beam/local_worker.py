"""A worker process of the local runner: only the process of the job writes to the terminal.

The error of a step reaches that process, which reports it; a worker of Beam's own writes its
traceback several times too, and a Ctrl-C ends it with another.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

_STDERR = 2


def worker_command() -> str:
    """The command of a worker, for a shell; a signal that ends the worker is the shell's too."""
    return f"exec {shlex.quote(sys.executable)} -m {__name__}"


def main() -> None:
    """Works for the job whose addresses are in the environment, until that job ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job ends its workers
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main()
