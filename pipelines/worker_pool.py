"""Local Python workers for runners that start none themselves, such as Flink and Spark."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fcnseg.errors import InputError

_PATIENCE_S = 60  # importing Beam takes 2 s, on a busy machine ten times as long
_GRACE_S = 20  # Beam gives each worker 10 s to stop


@contextlib.contextmanager
def worker_pool(*, log: Path | None = None) -> Iterator[str]:
    """Starts Beam's worker pool, which starts a process for each worker that a runner requests.

    Args:
        log: File for the output of the pool and its workers; without one it is discarded.

    Yields:
        Address of the pool, for `--environment_type EXTERNAL --environment_config ADDRESS`.

    Raises:
        InputError: If the pool ends or does not listen within a minute.
    """
    port = free_port()
    argv = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    # The pool starts its workers as `python`: the executable of this process.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with contextlib.ExitStack() as stack:
        said = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        pool = subprocess.Popen(
            [*argv, f"--service_port={port}"],
            env={**os.environ, "PATH": path},
            stdout=said,
            stderr=said,
        )
        stack.callback(_stop, pool)
        wait_until_it_listens(port, pool, name="the worker pool")
        yield f"localhost:{port}"


def free_port() -> int:
    """Finds a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], *, name: str) -> None:
    """Waits for a server on this machine.

    Raises:
        InputError: If the server ends, or does not listen within a minute.
    """
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    ended = process.returncode
    happened = "is silent" if ended is None else f"ended with status {ended}"
    raise InputError(f"{name} must listen on port {port} within {_PATIENCE_S} s, but it {happened}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a pool like Ctrl-C, so that it ends its workers."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
